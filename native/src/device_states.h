// Hidden states of rows in the memory of the device that computes the layers on both sides of them: the graph of one
// range writes them, that of the next one reads them, and to the host go those that it asks for.
//
// A row has two places, and takes turns: where a computation fails or begins again, it still finds what it began with.
#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>

// A tensor in memory of its own.
struct specee_device_tensor {
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;
    ggml_tensor *           tensor = nullptr;

    // False: there is no memory for it.
    bool allocate(ggml_backend_buffer_type_t buft, ggml_type type, int64_t n0, int64_t n1);
};

// One that is no CPU.
struct specee_device {
    ggml_backend_dev_t dev;
    ggml_backend_t     backend; // of the context
    bool               has_memory = true;

    specee_device_tensor states;    // [n_embd, 2 n_kept]
    specee_device_tensor estimates; // [n_embd, 2 n_kept] the states seen through lenses, once there is one

    ggml_backend_buffer_type_t buft() const { return ggml_backend_dev_buffer_type(dev); }
};
