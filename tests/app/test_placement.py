"""Which layers go to which device: as many of the first ones as have room."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from specee.app.cli.program import program
from specee.app.engine import placement
from specee.app.engine.placement import Needs, Placement
from specee.app.errors import USAGE, AppError
from specee.app.options import LoadOptions
from specee.models import embedded, gguf_header, layer_bytes
from specee.native import devices
from specee.native.devices import Device

NEED = Needs((100,) * 10, 300, 50)
"""Ten layers, then the LM head."""


def free(n_bytes: int) -> int:
    """So much is free that this much may be taken."""
    return int(n_bytes / placement.SHARE) + 1


@pytest.mark.parametrize(
    ("bytes_free", "n"),
    [(0, 11), (1350, 11), (1349, 10), (1050, 10), (1049, 9), (150, 1), (149, 0)],
)
def test_as_many_layers_as_have_room(bytes_free: int, n: int) -> None:
    """The LM head is the last one. A device that does not say what is free takes all."""
    assert placement.fitting(NEED, [free(bytes_free) if bytes_free else 0], [1.0]) == n


def test_each_device_needs_room_for_its_own() -> None:
    assert placement.fitting(NEED, [free(550), free(850)], [1.0, 1.0]) == 10
    assert placement.fitting(NEED, [free(650), free(850)], [1.0, 1.0]) == 11  # six layers and four with the head
    assert placement.fitting(NEED, [free(250), free(850)], [1.0, 3.0]) == 8  # two of the first eight
    assert placement.fitting(NEED, [free(550), free(850)], [0.0, 1.0]) == 8, "what has no share needs no room"


def test_layers_are_shared_out_in_their_order() -> None:
    assert placement.shared_out(4, [1.0, 1.0]) == [0, 0, 1, 1]
    assert placement.shared_out(5, [3.0, 1.0]) == [0, 0, 0, 0, 1]
    assert placement.shared_out(3, [0.0, 2.0]) == [1, 1, 1]
    assert placement.shared_out(0, [1.0]) == []


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "layers 1-3 and the LM head on the CPU"),
        (1, "layer 1 on RPC0 (a:1), layers 2-3 and the LM head on the CPU"),
        (3, "layers 1-2 on RPC0 (a:1), layer 3 on CUDA0, the LM head on the CPU"),
        (4, "layers 1-2 on RPC0 (a:1), layer 3 and the LM head on CUDA0"),
        (99, "layers 1-2 on RPC0 (a:1), layer 3 and the LM head on CUDA0"),
    ],
)
def test_what_runs_where_in_words(n: int, words: str) -> None:
    devices = Device("RPC0", "worker", "a:1", 1, 1, "a:1"), Device("CUDA0", "GPU", "a card", 1, 1)
    assert Placement(n, devices, (1.0, 1.0)).words(3) == words


def test_what_layers_weigh(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(2)
    for name, n in (("token_embd", 8), ("blk.0.a", 1), ("blk.0.b", 2), ("blk.1.a", 4), ("output_norm", 1)):
        writer.add_tensor(f"{name}.weight", np.zeros((n, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = layer_bytes.read(gguf_header.read(tmp_path / "m.gguf"))
    assert found == layer_bytes.LayerBytes((3 * 128, 4 * 128), 9 * 128), "the embedding is the LM head, copied"


@pytest.mark.parametrize(
    ("options", "has"),
    [
        ({}, False),
        ({"gpu_layers": 0}, False),
        ({"gpu_layers": "auto"}, True),
        ({"gpu_layers": 3}, True),
        ({"rpc": "a:1"}, True),
        ({"device": "CUDA0"}, True),
        ({"rpc": "a:1", "gpu_layers": 0}, False),
        ({"device": "none"}, False),
        ({"device": "CPU", "gpu_layers": 3, "rpc": "a:1"}, False),
    ],
)
def test_other_devices_are_used_where_they_are_asked_for(options: dict[str, object], has: bool) -> None:
    load = LoadOptions(n_ctx=512, **options)  # type: ignore[arg-type]
    assert load.has_devices == has and not load.on_cpu.has_devices and load.on_cpu.n_ctx == 512


@pytest.mark.parametrize(
    ("asked", "split"), [("1e300,1", (1.0, 1e-300)), ("2e-300,1e-300", (1.0, 0.5)), ("0,3", (0.0, 1.0))]
)
def test_shares_fit_into_32_bits(asked: str, split: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Device(f"RPC{i}", "worker", "", 0, 0, f"a:{i}") for i in range(2)]
    monkeypatch.setattr(devices, "choose", lambda endpoints, names: there)
    load = LoadOptions(rpc="a:1,a:2", tensor_split=asked, gpu_layers=3)
    assert placement.choose(load, NEED).split == split


@pytest.mark.parametrize(("has_lost", "n"), [(False, 9), (True, 4)])
def test_what_is_left_takes_what_it_has_room_for(has_lost: bool, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker was lost; else what was asked for is done."""
    there = [Device("RPC0", "worker", "", free(450), 0, "a:1")]
    monkeypatch.setattr(devices, "choose", lambda endpoints, names: there)
    load = LoadOptions(rpc="a:1", gpu_layers=9, has_lost=has_lost)
    assert placement.choose(load, NEED).n_layers == n


@pytest.mark.skipif(embedded.path() is None, reason="built without the embedded model")
@pytest.mark.parametrize("more", [[], ["--gpu-layers", "0", "--rpc", "127.0.0.1:1"], ["--device", "none"]])
@pytest.mark.parametrize("command", [["serve"], ["models", "show"], ["doctor", "--quick"]])
def test_shares_without_a_device_are_one_line(command: list[str], more: list[str], tmp_path: Path) -> None:
    line = [*command, "--data-dir", str(tmp_path), "--tensor-split", "3,1", *more]
    with pytest.raises(AppError, match=r"--tensor-split changes nothing: .*--gpu-layers N") as error:
        program.main(line, prog_name="specee-chat", standalone_mode=False)
    assert error.value.exit_code == USAGE
