"""A model in several files, as llama.cpp's gguf-split writes it: all values in the first one, tensors in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from gguf import GGUFValueType as Type


def split(
    source: Path, folder: Path, n_parts: int, *, name: str | None = None, first_is_empty: bool = False
) -> list[Path]:
    """The parts' paths. `first_is_empty`: the first part has no tensors (--no-tensor-first-split)."""
    reader = gguf.GGUFReader(source)
    tensors: list[Any] = list(reader.tensors)
    n_with_tensors = n_parts - first_is_empty
    shares = [
        tensors[len(tensors) * i // n_with_tensors : len(tensors) * (i + 1) // n_with_tensors]
        for i in range(n_with_tensors)
    ]
    if first_is_empty:
        shares.insert(0, [])
    paths = []
    for i, share in enumerate(shares):
        path = folder / f"{name or source.stem}-{i + 1:05}-of-{n_parts:05}.gguf"
        writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
        if i == 0:
            for key, field in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    items = field.types[-1] if field.types[0] == Type.ARRAY else None
                    writer.add_key_value(key, field.contents(), field.types[0], sub_type=items)
        else:
            writer.kv_data[0].clear()
        writer.add_key_value("split.no", i, Type.UINT16)
        writer.add_key_value("split.count", n_parts, Type.UINT16)
        writer.add_key_value("split.tensors.count", len(tensors), Type.INT32)
        for tensor in share:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths
