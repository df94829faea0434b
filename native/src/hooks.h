// The call sites that our patch puts into llama.cpp; see native/README.md.
#pragma once

struct ggml_tensor;
struct llm_graph_context;
struct specee_rows;

// What llm_graph_context::build_attn_mha is called with.
struct specee_attention_of {
    ggml_tensor * q;
    ggml_tensor * k;
    ggml_tensor * v;
    ggml_tensor * kq_b;
    ggml_tensor * mask;
    ggml_tensor * sinks;
    ggml_tensor * v_mla;
    float         scale;
    int           il;
};

// A graph is about to be built. Of a range of layers: the layers before it go to a scrap graph.
void specee_graph_begin(llm_graph_context & builder);

// The end of layer `il`: where a range starts or stops. Returns the input of the next layer.
ggml_tensor * specee_layer_end(const llm_graph_context & builder, ggml_tensor * cur, int il);

// Attention of a batch of rows of several slots, by flash attention, or through a window; null where llama.cpp's own
// does.
ggml_tensor * specee_attention(const llm_graph_context & builder, const specee_attention_of & attention);

// False, with a logged reason, while rows in flight have deferred layers: `caller` would read K/V that are not there.
bool specee_no_deferred_layers(const specee_rows * rows, const char * caller);
