#include "lm_head.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cstring>
#include <string>

static float parameter(const ggml_tensor * t, int i) {
    float value;
    std::memcpy(&value, (const float *) t->op_params + i, sizeof(value));
    return value;
}

// A tensor of the model's file: not computed.
static bool is_weight(const ggml_tensor * t, int64_t n) {
    return t != nullptr && t->op == GGML_OP_NONE && (t->flags & GGML_TENSOR_FLAG_INPUT) == 0 && ggml_nelements(t) == n;
}

static bool has_one_weight(const ggml_tensor * t) {
    return is_weight(t->src[1], 1) && t->src[1]->type == GGML_TYPE_F32 && t->src[1]->buffer != nullptr;
}

static float weight_of(const ggml_tensor * t) {
    float value;
    ggml_backend_tensor_get(t->src[1], &value, 0, sizeof(value));
    return value;
}

static bool keeps_values(const ggml_tensor * t) {
    return (t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_CONT) &&
           ggml_nelements(t) == ggml_nelements(t->src[0]);
}

// The same, or some of the rows.
static bool keeps_rows(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS || keeps_values(t);
}

// From the logits back to the product with the matrix; null where something else is met.
static const ggml_tensor * read_logits(const ggml_tensor * t, specee_lm_head & head) {
    float factor = 1; // of all that is below
    for (; t != nullptr; t = t->src[0]) {
        if (t->op == GGML_OP_MUL_MAT) {
            head.scale = factor;
            return t;
        }
        if (t->op == GGML_OP_SCALE && parameter(t, 1) == 0) {
            factor *= parameter(t, 0);
        } else if (t->op == GGML_OP_MUL && has_one_weight(t)) {
            factor *= weight_of(t);
        } else if (t->op == GGML_OP_ADD && is_weight(t->src[1], t->ne[0]) && head.bias == nullptr) {
            head.bias       = t->src[1];
            head.bias_scale = factor;
        } else if (t->op == GGML_OP_UNARY && ggml_get_unary_op(t) == GGML_UNARY_OP_TANH && head.cap == 0 &&
                   head.bias == nullptr) {
            head.cap = factor;
            factor   = 1;
        } else if (!keeps_values(t)) {
            return nullptr;
        }
    }
    return nullptr;
}

// From what the matrix is multiplied with back to the norm.
static const ggml_tensor * read_norm(const ggml_tensor * t, specee_lm_head & head) {
    for (; t != nullptr; t = t->src[0]) {
        if (t->op == GGML_OP_NORM || t->op == GGML_OP_RMS_NORM) {
            head.centred = t->op == GGML_OP_NORM;
            head.eps     = parameter(t, 0);
            return t;
        }
        const bool has_weights = head.norm != nullptr || head.norm_bias != nullptr;
        if (t->op == GGML_OP_SCALE && parameter(t, 1) == 0 && !has_weights) {
            head.scale *= parameter(t, 0);
        } else if (t->op == GGML_OP_ADD && is_weight(t->src[1], t->ne[0]) && !has_weights) {
            head.norm_bias = t->src[1];
        } else if (t->op == GGML_OP_MUL && is_weight(t->src[1], t->ne[0]) && head.norm == nullptr) {
            head.norm = t->src[1];
        } else if (!keeps_rows(t)) {
            return nullptr;
        }
    }
    return nullptr;
}

// The same, or the copy of it that the scheduler made for another device.
static bool is_or_copies(const ggml_tensor * t, const ggml_tensor * state) {
    if (t == nullptr || t == state) {
        return t == state;
    }
    const std::string name = "#" + std::string(ggml_get_name(state)) + "#";
    return t->op == GGML_OP_NONE && ggml_are_same_shape(t, state) && std::strstr(ggml_get_name(t), name.c_str());
}

bool specee_read_lm_head(const ggml_tensor * logits, const ggml_tensor * state, specee_lm_head & head) {
    const ggml_tensor * product = read_logits(logits, head);
    if (product == nullptr || product->src[0]->op != GGML_OP_NONE) {
        return false;
    }
    head.matrix              = product->src[0];
    const ggml_tensor * norm = read_norm(product->src[1], head);
    const ggml_tensor * t    = norm == nullptr ? nullptr : norm->src[0];
    while (t != nullptr && t != state && keeps_rows(t)) {
        t = t->src[0];
    }
    return is_or_copies(t, state);
}
