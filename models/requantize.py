"""A copy of a model whose weights are quicker to multiply for many tokens at once.

llama.cpp has batch kernels for Q4_0, Q8_0 and the K-quants' 4 bits, not for Q4_1 and Q6_K, which matters where our own
kernels do not read prompts (native/README.md). Eight bits keep the values
of Q4_1, and of an LM head in Q6_K, to within 0.4% of a block's largest one, so the text hardly changes; the file grows.
An embedding that also serves as the LM head is written a second time, as a head of its own.

Types of less than four bits that only have kernels for one token at a time (IQ3_S and its like) become Q4_0, the
nearest type with others that the gguf package can write. What that costs in text is measured afterwards
(app/engine/optimization_task.py), and too much of it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.models import gguf_header, gguf_types
from specee.models.gguf_header import Header, Tensor

HEAD, EMBEDDING = "output.weight", "token_embd.weight"
TARGET = "Q8_0"
NEAREST = dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0"), "Q4_0")
"""What takes the place of types without a kernel for several tokens at once."""
FILE_TYPE_Q8_0 = 7
FILE_TYPES = {"Q8_0": FILE_TYPE_Q8_0, "Q4_0": 2}
"""llama.cpp's numbers for such files."""

OnShare = Callable[[float], None]


@dataclass(frozen=True)
class Change:
    """A tensor that is written in another type, or (`added`) once more under another name."""

    source: Tensor
    name: str
    added: bool = False
    target: str = TARGET

    @property
    def n_bytes(self) -> int:
        _, block, block_bytes = gguf_types.TENSORS[gguf_types.NUMBERS[self.target]]
        return self.source.n_elements // block * block_bytes


def changes(header: Header) -> list[Change]:
    """What a copy would change; nothing where no weights would gain by it."""
    found = [
        Change(t, t.name, target=target)
        for t in header.tensors
        if (target := _faster(t)) is not None and t.shape[0] % 32 == 0
    ]
    names = {t.name: t for t in header.tensors}
    if HEAD not in names and EMBEDDING in names:
        found.append(Change(names[EMBEDDING], HEAD, added=True))
    return found


def _faster(tensor: Tensor) -> str | None:
    """The type to write it in, where its own has no batch kernels; of the embedding only single rows are read, so it
    does not matter, and experts of a mixture have none in any type."""
    if tensor.name == EMBEDDING or len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
        return None
    if tensor.type == "Q4_1" or (tensor.name == HEAD and tensor.type == "Q6_K"):
        return TARGET
    return NEAREST.get(tensor.type)


def describe(changed: list[Change]) -> list[str]:
    """The changes, a line each."""
    kinds = Counter(
        (c.source.type, c.target, "LM head" if c.name == HEAD else "layer weights") for c in changed if not c.added
    )
    lines = [f"{n} x {what}: {type_} -> {target}" for (type_, target, what), n in kinds.items()]
    lines += [f"an LM head of its own, {TARGET}, from the embedding ({c.source.type})" for c in changed if c.added]
    return lines


def size_of_copy(header: Header, changed: list[Change]) -> int:
    """Bytes of the copy, to some kilobytes."""
    growth = sum(c.n_bytes - (0 if c.added else c.source.n_bytes) for c in changed)
    return header.file_bytes + growth


def write(header: Header, changed: list[Change], target: Path, on_share: OnShare = lambda share: None) -> None:
    """Writes the copy, tensor by tensor. `on_share` gets the share that is done. Raises OSError."""
    import gguf
    import numpy as np

    readers = [gguf.GGUFReader(path) for path in header.files]
    writer = gguf.GGUFWriter(target, header.architecture)
    if (alignment := header.values.get("general.alignment")) is not None:
        writer.data_alignment = alignment
    kept = {change.target for change in changed if not change.added}
    _copy_values(readers[0], writer, FILE_TYPES[kept.pop()] if len(kept) == 1 else None)
    by_name = {change.source.name: change for change in changed if not change.added}
    read = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
    plan = [(tensor, by_name.get(tensor.name)) for tensor in header.tensors]
    plan += [(change.source, change) for change in changed if change.added]
    for tensor, change in plan:
        data = read[tensor.name].data
        if change is None:
            writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, read[tensor.name].tensor_type)
        else:
            kind = gguf.GGMLQuantizationType[change.target]
            shape = gguf.quant_shape_to_byte_shape(tensor.shape[::-1], kind)
            writer.add_tensor_info(change.name, shape, np.dtype(np.uint8), change.n_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (tensor, change) in enumerate(plan):
        on_share(done / len(plan))
        original = read[tensor.name]
        writer.write_tensor_data(original.data if change is None else _converted(original, change.target))
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


def _converted(tensor: Any, target: str) -> Any:
    """A tensor of the gguf package's reader as bytes of another type: uint8 [rows, bytes of a row]."""
    import gguf
    import numpy as np
    from gguf.quants import dequantize, quantize

    kind = gguf.GGMLQuantizationType[target]
    if tensor.tensor_type == kind:
        return tensor.data
    return quantize(dequantize(tensor.data, tensor.tensor_type), kind).view(np.uint8)
