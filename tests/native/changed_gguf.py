"""A model's file with other values in its header, and other tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType as Type

Value = Any
"""None: the key is left out. A (type, value), or of a list (ARRAY, value, type of its items)."""
Tensors = Callable[[str, np.ndarray, Any], "tuple[str, np.ndarray, Any] | None"]
"""From a tensor's name, numbers and type to what is written; None leaves it out."""


def write(
    source: Path, target: Path, values: dict[str, Value], tensors: Tensors | None = None, arch: str | None = None
) -> Path:
    """Keys are written without the name of the architecture, as `.block_count`."""
    reader = gguf.GGUFReader(source)
    before = reader.fields["general.architecture"].contents()
    arch = arch or before
    writer = gguf.GGUFWriter(target, arch)
    left = {f"{arch}{key}" if key.startswith(".") else key: value for key, value in values.items()}
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        key = key.replace(f"{before}.", f"{arch}.", 1)
        kind = field.types[0]
        as_it_was = (kind, field.contents(), field.types[-1] if kind == Type.ARRAY else None)
        _add(writer, key, left.pop(key, as_it_was))
    for key, value in left.items():
        _add(writer, key, value)
    for tensor in reader.tensors:
        told = (tensor.name, tensor.data, tensor.tensor_type)
        if (found := told if tensors is None else tensors(*told)) is not None:
            writer.add_tensor(found[0], found[1], raw_dtype=found[2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if value is not None:
        kind, content, *item = value
        writer.add_key_value(key, content, kind, item[0] if item else None)


def without(*beginnings: str) -> Tensors:
    """All tensors but those whose names begin so."""
    return lambda name, data, kind: None if name.startswith(beginnings) else (name, data, kind)


def filled(wanted: str, number: float) -> Tensors:
    """The float32 tensor of this name full of one number."""
    return lambda name, data, kind: (name, np.full_like(data, number) if name == wanted else data, kind)


def cut(wanted: str, rows: int) -> Tensors:
    """The tensor of this name with its first rows only."""
    return lambda name, data, kind: (name, data[:rows].copy() if name == wanted else data, kind)
