"""A GGUF model as llama.cpp opens it: weights and vocabulary."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from specee.native import abi, library, log
from specee.native.devices import Device, here
from specee.native.errors import DeviceError, NativeError, UnusableModelError

_SEPARATOR = "\x01"
"""Joined with no neighbour by any tokenizer."""


class Model:
    """An opened GGUF file: weights and vocabulary.

    The first `gpu_layers` of its layers, and after all of them its LM head, are on `devices` (empty: the GPUs that the
    build knows, on this machine), shared out by `tensor_split`, a number for each of them (empty: by the memory that is
    free there). Raises UnusableModelError when llama.cpp cannot load it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        gpu_layers: int = 0,
        devices: Sequence[Device] = (),
        tensor_split: Sequence[float] = (),
        use_mmap: bool = True,
        on_progress: Callable[[float], bool] | None = None,
    ) -> None:
        self.path = Path(path)
        self.lib = library.load()
        import llama_cpp.llama_cpp as llama  # only now: the bindings load the library that `load` points them at

        self.llama = llama
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.devices = tuple(devices)
        if devices:
            self._handles = (ctypes.c_void_p * (len(devices) + 1))(*(device.handle for device in devices))
            params.devices = ctypes.addressof(self._handles)
        if tensor_split:
            self._split = (ctypes.c_float * llama.llama_max_devices())(*tensor_split)
            params.tensor_split = self._split
        if not use_mmap:
            params.load_mode = 0
        if not library.use_extra_buffers():
            params.use_extra_bufts = False
        if on_progress is not None:
            self._progress = llama.llama_progress_callback(lambda done, _: on_progress(done))
            params.progress_callback = self._progress
        library.need_memory(f"opening {self.path}")
        log.listen(llama)
        self.handle = llama.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self.handle:
            raise _refused(self.path, library.last_error() or log.reason(), on_devices=bool(devices))
        self.vocab = llama.llama_model_get_vocab(self.handle)
        self.arch = self._meta("general.architecture") or "unknown"
        self.n_layer = llama.llama_model_n_layer(self.handle)
        self.places = tuple(self.lib.specee_layer_device(self.handle, i).decode() for i in range(self.n_layer + 1))
        """The name of the device of each layer, and of the LM head."""
        self.gpu_layers = sum(place != "CPU" for place in self.places)  # the LM head is the last one
        self.on_workers = self.gpu_layers > 0 and any(device.endpoint is not None for device in devices)
        self.all_on_gpu = self.gpu_layers > self.n_layer and not self.on_workers  # a worker may have none
        self.computed_by: tuple[object, ...] = (self.gpu_layers,)
        """What computes, as far as proofs depend on it."""
        if self.gpu_layers and not self.on_workers:
            names = set(self.places)
            kinds = tuple((each.name, each.description) for each in here() if each.name in names)
            self.computed_by = (self.places, kinds)
        self.on_vulkan = any(place.startswith("Vulkan") for place in self.places)
        self.n_embd = llama.llama_model_n_embd(self.handle)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train = llama.llama_model_n_ctx_train(self.handle)
        self.bos_text = self._text(llama.llama_vocab_bos(self.vocab))
        self.eos_text = self._text(llama.llama_vocab_eos(self.vocab))
        # asked for here, as llama.cpp itself would end a text with EOS, or a separator, for some vocabularies
        self._bos = llama.llama_vocab_bos(self.vocab) if llama.llama_vocab_get_add_bos(self.vocab) else -1
        self._stops = frozenset(t for t in range(self.n_vocab) if llama.llama_vocab_is_eog(self.vocab, t))
        attributes = [llama.llama_vocab_get_attr(self.vocab, token) for token in range(self.n_vocab)]
        self._texts: frozenset[int] = frozenset()
        self.control_tokens = self._names(attributes, llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN)
        """Their names in texts, and that of the unknown token."""
        self.user_defined_tokens = self._names(attributes, llama.LLAMA_TOKEN_ATTR_USER_DEFINED)
        """Names of tokens that are read as such in every text."""
        self._first_space = self._space_before_texts()

    def _meta(self, key: str) -> str | None:
        size = 1 << 12
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = self.llama.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if n < 0:
                return None
            if n < size:
                return buffer.value.decode("utf-8", "replace")
            size = n + 1

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text = self.llama.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def _names(self, attributes: Sequence[int], wanted: int) -> tuple[str, ...]:
        names = (self._text(token) for token, attribute in enumerate(attributes) if attribute & wanted)
        return tuple(filter(None, names))

    def _space_before_texts(self) -> list[int]:
        """What stands before a text that begins with _SEPARATOR, if the tokenizer puts a space there, and that."""
        try:
            adds_space = b"".join(map(self.piece, self.tokenize("a"))) == b" a"
            return self.tokenize(_SEPARATOR) if adds_space else []
        except UnusableModelError:
            return []

    def tokenize_rest(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text that follows another one, so that no space is put before it."""
        if self._first_space:
            tokens, n = self.tokenize(_SEPARATOR + text, special=special), len(self._first_space)
            if tokens[:n] == self._first_space:
                return tokens[n:]
        return self.tokenize(text, special=special)

    def tokenize(self, text: str, *, special: bool = True, bos: bool = False) -> list[int]:
        """Token ids of a text; `special` reads control tokens in it, `bos` adds BOS if the vocabulary wants it.

        Raises UnusableModelError for a text that the vocabulary has no tokens for.
        """
        first = [self._bos] if bos and self._bos >= 0 else []
        data = text.encode("utf-8")
        capacity, n = len(data) + 16, ctypes.c_int32()
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            status = self.lib.specee_tokenize(
                self.vocab, len(data), data, False, special, capacity, tokens, ctypes.byref(n)
            )
            if status < abi.OK:
                why = f"its vocabulary lacks tokens that every text needs ({library.last_error()})"
                raise UnusableModelError("The model cannot read this text", f"{why}; take another model")
            if n.value <= capacity:
                return first + tokens[: n.value]
            capacity = n.value

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for; nothing for control tokens, or with `special` their names."""
        special = special or token in self._texts
        capacity, n = 256, ctypes.c_int32()
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            status = self.lib.specee_token_piece(self.vocab, token, special, capacity, buffer, ctypes.byref(n))
            if status < abi.OK:
                raise UnusableModelError("The model has no such token", f"{library.last_error()}; take another model")
            if n.value <= capacity:
                return buffer.raw[: n.value]
            capacity = n.value

    def stop_at(self, name: str) -> None:
        """The control token of this name ends the generation, too: not all files say so."""
        self._stops |= set(self.tokenize(name))

    def read_as_text(self, name: str) -> None:
        """The token of this name is text, though llama.cpp takes it for the end of an answer."""
        (token,) = self.tokenize(name)
        self._stops -= {token}
        self._texts |= {token}
        self.control_tokens = tuple(each for each in self.control_tokens if each != name)

    @property
    def stop_names(self) -> list[str]:
        """The names of the tokens that end the generation."""
        return [self._text(token) for token in self._stops]

    def is_stop(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return token in self._stops

    def close(self) -> None:
        """Free the weights; engines and samplers must be closed before."""
        if self.handle:
            self.llama.llama_model_free(self.handle)
            self.handle = None


def _refused(path: Path, why: str | None, *, on_devices: bool) -> NativeError:
    if why is not None and log.is_of_memory(why):
        to_do = "close other programs, take a smaller model, or fewer --gpu-layers"
        kind = DeviceError if on_devices else NativeError
        return kind("There is no memory", f"too little is left for the weights of {path} ({why}); {to_do}")
    newer = "a newer specee-chat may know it; else " if why is not None and why.startswith("unknown") else ""
    told = f"llama.cpp cannot load {path}: {why or 'it does not say why'}"
    return UnusableModelError("model refused", f"{told}; {newer}take another model, or another file of this one")
