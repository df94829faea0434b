"""A copy of a model whose weights are quicker to multiply for many tokens at once.

llama.cpp has batch kernels for Q4_0, Q8_0 and the K-quants' 4 bits, not for Q4_1 and Q6_K, which matters where our own
kernels do not read prompts (native/README.md). Eight bits keep the values
of Q4_1, and of an LM head in Q6_K, to within 0.4% of a block's largest one, so the text hardly changes; the file grows.
An embedding that also serves as the LM head is written a second time, as a head of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.models import gguf_header
from specee.models.gguf_header import Header, Tensor

HEAD, EMBEDDING = "output.weight", "token_embd.weight"
TARGET = "Q8_0"
FILE_TYPE_Q8_0 = 7  # llama.cpp's name for such a file

OnShare = Callable[[float], None]


@dataclass(frozen=True)
class Change:
    """A tensor that is written in another type, or (`added`) once more under another name."""

    source: Tensor
    name: str
    added: bool = False


def changes(header: Header) -> list[Change]:
    """What a copy would change; nothing where no weights would gain by it."""
    found = [Change(t, t.name) for t in header.tensors if _is_slow(t) and t.shape[0] % 32 == 0]
    names = {t.name: t for t in header.tensors}
    if HEAD not in names and EMBEDDING in names:
        found.append(Change(names[EMBEDDING], HEAD, added=True))
    return found


def _is_slow(tensor: Tensor) -> bool:
    """Whether its type has no batch kernels; of the embedding only single rows are read, so it does not matter."""
    if tensor.name == EMBEDDING or len(tensor.shape) < 2:
        return False
    return tensor.type == "Q4_1" or (tensor.name == HEAD and tensor.type == "Q6_K")


def describe(changed: list[Change]) -> list[str]:
    """The changes, a line each."""
    kinds = Counter((c.source.type, "LM head" if c.name == HEAD else "layer weights") for c in changed if not c.added)
    lines = [f"{n} x {what}: {type_} -> {TARGET}" for (type_, what), n in kinds.items()]
    lines += [f"an LM head of its own, {TARGET}, from the embedding ({c.source.type})" for c in changed if c.added]
    return lines


def size_of_copy(header: Header, changed: list[Change]) -> int:
    """Bytes of the copy, to some kilobytes."""
    growth = sum(c.source.n_elements // 32 * 34 - (0 if c.added else c.source.n_bytes) for c in changed)
    return header.file_bytes + growth


def write(header: Header, changed: list[Change], target: Path, on_share: OnShare = lambda share: None) -> None:
    """Writes the copy, tensor by tensor. `on_share` gets the share that is done. Raises OSError."""
    import gguf
    import numpy as np

    readers = [gguf.GGUFReader(path) for path in header.files]
    writer = gguf.GGUFWriter(target, header.architecture)
    if (alignment := header.values.get("general.alignment")) is not None:
        writer.data_alignment = alignment
    _copy_values(readers[0], writer, FILE_TYPE_Q8_0 if any(not c.added for c in changed) else None)
    by_name = {change.source.name: change for change in changed if not change.added}
    read = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
    plan = [(tensor, by_name.get(tensor.name)) for tensor in header.tensors]
    plan += [(change.source, change) for change in changed if change.added]
    for tensor, change in plan:
        data = read[tensor.name].data
        if change is None:
            writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, read[tensor.name].tensor_type)
        else:
            shape = gguf.quant_shape_to_byte_shape(tensor.shape[::-1], gguf.GGMLQuantizationType.Q8_0)
            n_bytes = tensor.n_elements // 32 * 34
            writer.add_tensor_info(change.name, shape, np.dtype(np.uint8), n_bytes, gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (tensor, change) in enumerate(plan):
        on_share(done / len(plan))
        original = read[tensor.name]
        writer.write_tensor_data(original.data if change is None else _q8_0(original))
    writer.close()
    gguf_header.read(target)


def _copy_values(reader: Any, writer: Any, file_type: int | None) -> None:
    import gguf

    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith(("GGUF.", "split.")):
            continue  # the writer puts them there, and the copy is one file
        value = field.contents()
        if field.name == "general.file_type" and file_type is not None:
            value = file_type
        items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=items)


def _q8_0(tensor: Any) -> Any:
    """A tensor of the gguf package's reader as bytes of Q8_0: uint8 [rows, blocks of a row x 34]."""
    import gguf
    from gguf.quants import dequantize, quantize

    if tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0:
        return tensor.data
    return quantize(dequantize(tensor.data, tensor.tensor_type), gguf.GGMLQuantizationType.Q8_0)
