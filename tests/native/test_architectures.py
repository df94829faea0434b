"""Which architectures we say that llama.cpp knows."""

from __future__ import annotations

import re

import pytest
from ggml_programs import ggml_source

from specee.models import architectures


def test_they_are_those_of_the_pinned_llama_cpp() -> None:
    """One that is missing here would be refused though it runs."""
    ggml = ggml_source()
    if ggml is None:
        pytest.skip("no unpacked llama.cpp in build/ and none in SPECEE_LLAMA_SOURCE")
    source = (ggml.parent / "src/llama-arch.cpp").read_text("utf-8")
    names = re.search(r"LLM_ARCH_NAMES = \{(.*?)\n\};", source, re.DOTALL)
    assert names is not None
    named = set(re.findall(r'LLM_ARCH_\w+,\s*"([^"]+)"', names[1])) - {"(unknown)"}
    assert named == architectures.KNOWN
    assert set(architectures.HEADS) <= named
