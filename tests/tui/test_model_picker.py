"""The list of models: `/model` without a name, and F3."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_session import (
    INFO,
    FakeSession,
    chat,
    idle,
    in_mid_answer,
    notices,
    ready,
    screen,
    submit,
    survey_ended,
    until,
)
from textual.pilot import Pilot

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))
sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

import tiny_gguf
from hub_server import COMMIT, Hub, serving

from specee.app.errors import AppError
from specee.app.model_survey import ModelSurvey
from specee.app.options import LoadOptions
from specee.app.recommend import here
from specee.app.recommend.machine import DecodingSpeed, Machine
from specee.app.tui.model_picker import ModelPicker
from specee.app.tui.question import Question
from specee.models import file_hash

GB = 10**9
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LLAMA = ("bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_K_M.gguf")
SMALL = ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_k_m.gguf")
LARGE = ("bartowski/Qwen2.5-7B-Instruct-GGUF", "Qwen2.5-7B-Instruct-Q4_K_M.gguf")


def machine(free: int = 16 * GB) -> Machine:
    rates = {"Q4_K": 20e9, "Q6_K": 20e9, "Q8_0": 25e9, "Q4_1": 25e9, "F16": 25e9, "F32": 25e9}
    return Machine(8, 4, free, speed=DecodingSpeed(rates, {2: 1.1, 4: 1.3}))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shared cache, and a machine that is known at once."""
    from huggingface_hub import constants

    folder = tmp_path / "hf" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("specee.app.recommend.this_machine.look", lambda folders: machine())
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Small files behind the names of large ones."""
    from huggingface_hub import close_session, constants

    files = {}
    for seed, (repo, name) in enumerate((LLAMA, SMALL, LARGE)):
        files[repo] = {name: tiny_gguf.write(tmp_path / name, "llama", seed=seed, n_layer=40, width=2)}
    with serving(Hub(files)) as running:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        yield running
        close_session()


def session_in(tmp_path: Path, **options: Any) -> FakeSession:
    return FakeSession("one two three", load=LoadOptions(data_dir=str(tmp_path / "data"), **options))


def in_cache(cache: Path, repo: str, name: str) -> Path:
    """A model that was fetched."""
    path = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny_gguf.write(path, "llama")


def has_run(tmp_path: Path, path: Path) -> Path:
    """A file of the user's own that has answered here before."""
    file_hash.sha256(path, tmp_path / "data" / "cache")
    return path


def picker(app: Any) -> Any:
    assert isinstance(app.screen, ModelPicker), app.screen
    return app.screen


def names(app: Any) -> list[str]:
    return [row.name for row in picker(app)._rows if row is not None]


async def open_list(pilot: Pilot[Any], key: str = "f3") -> None:
    await ready(pilot)
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker))
    await until(pilot, lambda: not pilot.app.screen._survey.searching and "tokens/s" in screen(pilot.app))


async def search(pilot: Pilot[Any], text: str) -> None:
    await pilot.press(*text)
    await until(pilot, lambda: picker(pilot.app)._search.value == text)
    await pilot.pause(0.05)


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
async def test_three_groups_and_the_prompt_stays(size: tuple[int, int], tmp_path: Path, cache: Path) -> None:
    in_cache(cache, *LLAMA)
    session = session_in(tmp_path)
    async with chat(session).run_test(size=size) as pilot:
        await ready(pilot)
        await pilot.press(*"half a")
        await open_list(pilot)
        await until(pilot, lambda: "Recommended for this PC" in screen(pilot.app))
        rows = [row for row in picker(pilot.app)._rows if row is not None]
        groups = list(dict.fromkeys(row.group for row in rows))
        assert groups == ["Here", "Recommended for this PC", "Known, to be fetched"]
        assert {row.name for row in rows if row.group == "Here"} == {"smollm2-135m", "llama3.2-1b"}
        assert rows[0].name == "smollm2-135m" and "> smollm2-135m" in screen(pilot.app)
        assert "Enter use" in screen(pilot.app) and "Esc leave" in screen(pilot.app)
        await pilot.press("end", "pagedown", "pagedown", "pagedown", "pageup", "down", "up")
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
        assert pilot.app.prompt.text == "half a" and len(session.loads) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("llama3.2:1b", "llama3.2-1b"),
        ("LLAMA 3.2 1B", "llama3.2-1b"),
        ("smollm2-135m-instruct", "smollm2-135m"),
        ("code", "qwen2.5-coder-1.5b"),
        ("gemma terms", "gemma3-1b"),
        ("apache qwen 7b", "qwen2.5-7b"),
        ("thebloke", "tinyllama-1.1b"),
        ("best for small", ""),
        ("many languages", "qwen2.5-0.5b"),
    ],
)
async def test_search(text: str, found: str, tmp_path: Path) -> None:
    async with chat(session_in(tmp_path)).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        every = len(names(pilot.app))
        await search(pilot, text)
        assert 0 < len(names(pilot.app)) < every and (not found or found in names(pilot.app))


async def test_a_switch_keeps_the_chat_and_the_new_model_reads_it(tmp_path: Path) -> None:
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "First?")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/model")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker))
        await until(pilot, lambda: str(other) in names(pilot.app))
        await search(pilot, "other.gguf")
        await pilot.press("enter")
        await until(pilot, lambda: session.loads[-1].model == str(other) and idle(pilot.app))
        await until(pilot, lambda: any("answers from here on" in text for text in notices(pilot.app)))
        await submit(pilot, "Second?")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
    texts = [message.content for message in session.asked[1].messages]
    assert texts == ["First?", "one two three", "Second?"] and session.chat is not None and session.chat.turns == 4


@pytest.mark.parametrize("fatal", [False, True])
async def test_where_loading_fails_the_former_model_goes_on(fatal: bool, tmp_path: Path) -> None:
    has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        await search(pilot, "other.gguf")
        if fatal:
            session.loaded.clear()
        else:
            session.refused_load = AppError("too little memory", "close other programs")
        await pilot.press("enter")
        if fatal:
            await until(pilot, lambda: len(session.loads) == 2)
            session.kill()  # as the system does when memory is short
            session.loaded.set()
        await until(pilot, lambda: "smollm2-135m goes on answering" in " ".join(notices(pilot.app)[-1].split()))
        await until(pilot, lambda: idle(pilot.app))
        assert session.loads[-1].model is None and session.info is not None and session.model == "smollm2-135m"
        assert pilot.app.prompt.text == ""
        await submit(pilot, "Still there?")
        await until(pilot, lambda: session.sent and idle(pilot.app))


async def test_a_choice_during_an_answer_waits_for_its_end(tmp_path: Path) -> None:
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    session = session_in(tmp_path)
    async with in_mid_answer(session, 1) as pilot:
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker) and str(other) in names(pilot.app))
        await search(pilot, "other.gguf")
        await pilot.press("enter")
        await until(pilot, lambda: any("loaded when the answer is over" in text for text in notices(pilot.app)))
        assert len(session.loads) == 1 and session.gate is not None
        session.gate.release(10)
        await until(pilot, lambda: session.loads[-1].model == str(other) and idle(pilot.app))
        assert session.branch[-1].content == "one two three"


async def test_what_does_not_fit_is_marked_and_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    monkeypatch.setattr("specee.app.recommend.this_machine.look", lambda folders: machine(1000))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "! other.gguf" in screen(pilot.app) and "of memory" in screen(pilot.app))
        await search(pilot, "other.gguf")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: "Loading it may fail" in screen(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker))
        assert len(session.loads) == 1
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("enter")
        await until(pilot, lambda: session.loads[-1].model == str(other) and idle(pilot.app))


async def test_a_fetch_with_its_drafter_is_stopped_resumed_and_used(tmp_path: Path, hub: Hub) -> None:
    hub.slow = 0.05
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(120, 30)) as pilot:
        await open_list(pilot)
        await search(pilot, "qwen2.5-7b")
        await pilot.press("ctrl+f")
        await until(pilot, lambda: "downloading qwen2.5-7b" in screen(pilot.app))
        await pilot.press("ctrl+f")
        await until(pilot, lambda: pilot.app.controller.pull is None)
        assert "what has arrived is kept" in notices(pilot.app)[-1]
        await until(pilot, lambda: "of it are here" in screen(pilot.app))
        hub.slow = 0.0
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        for part in ("Fetch qwen2.5-7b", "Apache-2.0", "and qwen2.5-0.5b"):
            await until(pilot, lambda part=part: part in " ".join(re.sub("[│╭╮╰╯─]", " ", screen(pilot.app)).split()))
        await pilot.press("y")
        await until(pilot, lambda: session.loads[-1].model == "qwen2.5-7b" and idle(pilot.app))
        assert any("with its drafter qwen2.5-0.5b" in text for text in notices(pilot.app))
        assert len(hub.requests) == 3 and hub.requests[1][0] > 0, "what had arrived is not fetched again"
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker))
        await until(pilot, lambda: "> qwen2.5-7b" in screen(pilot.app) and "qwen2.5-0.5b" in names(pilot.app)[:3])


async def test_one_can_chat_while_a_model_is_fetched(tmp_path: Path, hub: Hub) -> None:
    hub.slow = 0.05
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(120, 30)) as pilot:
        await open_list(pilot)
        await search(pilot, "llama3.2-1b")
        await pilot.press("ctrl+f")
        await until(pilot, lambda: "downloading llama3.2-1b" in screen(pilot.app))
        await pilot.press("escape")
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert pilot.app.controller.pull is not None and "downloading llama3.2-1b" in screen(pilot.app)
        await submit(pilot, "/pull qwen2.5-7b")
        await until(pilot, lambda: "llama3.2-1b is still being downloaded" in notices(pilot.app)[-1])
        pilot.app.prompt.clear()
        hub.slow = 0.0
        await until(pilot, lambda: any("/model llama3.2-1b switches to it" in text for text in notices(pilot.app)))


async def test_offline_it_says_that_the_network_is_needed(tmp_path: Path) -> None:
    session = session_in(tmp_path, offline=True)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        assert "Known, to be fetched: needs the network (--offline" in screen(pilot.app)
        await search(pilot, "llama3.2-1b")
        for key in ("enter", "ctrl+f"):
            await pilot.press(key)
            await until(pilot, lambda: "--offline or HF_HUB_OFFLINE forbids fetching it" in screen(pilot.app))
            await pilot.press("backspace", "b")
        assert pilot.app.controller.pull is None


@pytest.mark.parametrize("size", [(60, 15), (200, 60)])
async def test_a_look_inside(size: tuple[int, int], tmp_path: Path) -> None:
    has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    async with chat(session_in(tmp_path)).run_test(size=size) as pilot:
        await open_list(pilot)
        await search(pilot, "other.gguf")
        await pilot.press("tab")
        await until(pilot, lambda: "architecture" in screen(pilot.app) and "llama" in screen(pilot.app))
        for word in ("licence", "chat template", "skips layers", "drafter"):
            for _ in range(12):
                if word in screen(pilot.app):
                    break
                await pilot.press("pagedown")
                await pilot.pause(0.05)
            assert word in screen(pilot.app)
        await pilot.press("tab")
        await pilot.press(*["backspace"] * len("other.gguf"))
        await search(pilot, "llama3.2-3b")
        await pilot.press("tab")
        await until(pilot, lambda: "Llama 3.2 Community License" in screen(pilot.app) and "file" in screen(pilot.app))
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, ModelPicker), "first the details go, then the list"
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)


async def test_names_from_elsewhere_do_not_steer_the_terminal(tmp_path: Path, cache: Path) -> None:
    hostile = "a\x1b[2J\x9b2J\x07\u202e[b]x名前.gguf"
    folder = tmp_path / "\x1b]0;X\x07"
    folder.mkdir()
    file = has_run(tmp_path, tiny_gguf.write(folder / hostile, "llama", seed=1))
    in_cache(cache, "some-one/models", hostile)
    (tmp_path / "data" / "models").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "models" / ("y" * 200 + ".gguf")).write_bytes(b"GGUF\3\0\0\0\x1b[2J")
    for size in ((60, 15), (130, 40)):
        session = session_in(tmp_path)
        async with chat(session).run_test(size=size) as pilot:
            await open_list(pilot)
            await until(pilot, lambda: len([name for name in names(pilot.app) if hostile in name]) == 2)
            for key in ("down", "tab", "down", "down", "tab", "delete", "escape"):
                await pilot.press(key)
                await pilot.pause(0.2)
                shown = screen(pilot.app)
                assert not FORBIDDEN.search(shown), repr(shown)
                for strip in pilot.app.screen._compositor.render_strips():
                    assert strip.cell_length == size[0]
            if isinstance(pilot.app.screen, ModelPicker):
                await pilot.press("escape")
    assert file.exists()


async def test_a_file_that_does_not_answer_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for i in range(100):
        (folder / f"m{i:03}.gguf").write_bytes(b"GGUF")
    slow = tiny_gguf.write(folder / "slow.gguf", "llama")
    tiny_gguf.write(folder / "tiny.gguf", "llama")
    read, never = here.local_model, threading.Event()

    def local_model(path: Path, where: str, folders: Any) -> Any:
        if path == slow:
            never.wait()
        return read(path, where, folders)

    monkeypatch.setattr(here, "local_model", local_model)
    monkeypatch.setattr("fake_session.INFO", replace(INFO, path=str(folder / "tiny.gguf")))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await open_list(pilot)
        await until(pilot, lambda: len(names(pilot.app)) > 120)
        await until(pilot, lambda: all(
            row.surveyed.read for row in picker(pilot.app)._rows if row is not None and "slow" not in row.name
        ))  # fmt: skip
        await search(pilot, "slow")
        assert names(pilot.app) == [str(slow)] and "its header is being read" in screen(pilot.app)
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
    never.set()


async def test_a_cache_that_does_not_answer_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def models(folders: Any) -> Iterator[Any]:
        never.wait()
        yield from ()

    monkeypatch.setattr("specee.app.model_catalogue.models", models)
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "Recommended" in screen(pilot.app) and str(other) in names(pilot.app))
        await search(pilot, "other.gguf")
        await pilot.press("enter")
        await until(pilot, lambda: session.loads[-1].model == str(other) and idle(pilot.app))
    never.set()


async def test_a_file_that_vanishes_or_is_damaged(tmp_path: Path) -> None:
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF\3\0\0\0")
    has_run(tmp_path, damaged)
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        await until(pilot, lambda: "! damaged.gguf" in screen(pilot.app))
        await search(pilot, "damaged.gguf")
        await until(pilot, lambda: "damaged model: " in screen(pilot.app))
        await pilot.press("enter")
        await pilot.press(*["backspace"] * len("damaged.gguf"))
        await search(pilot, "other.gguf")
        other.unlink()
        await pilot.press("tab")
        await until(pilot, lambda: "model not" in screen(pilot.app) or "no model" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: "model not found" in notices(pilot.app)[-1] and idle(pilot.app))
        assert len(session.loads) == 1 and session.info is not None


async def test_a_model_is_removed_after_a_question(tmp_path: Path, cache: Path) -> None:
    path = in_cache(cache, *LLAMA)
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        await pilot.press("delete")
        await until(pilot, lambda: "answers now" in screen(pilot.app))
        await search(pilot, "llama3.2-1b")
        for key in ("n", "y"):
            assert path.exists()
            await pilot.press("delete")
            await until(pilot, lambda: isinstance(pilot.app.screen, Question))
            await until(pilot, lambda: "Delete llama3.2-1b" in screen(pilot.app))
            await pilot.press(key)
            await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker))
        await until(pilot, lambda: not path.exists())
        await until(pilot, lambda: "Known, to be fetched" in screen(pilot.app) and "llama3.2-1b" in names(pilot.app))


async def test_what_was_found_first_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in use stands first, and is highlighted until the user goes elsewhere, whichever thread is faster."""
    has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    go_on, find = threading.Event(), ModelSurvey._find_named

    def late(survey: ModelSurvey) -> None:
        go_on.wait()
        find(survey)

    monkeypatch.setattr(ModelSurvey, "_find_named", late)
    async with chat(session_in(tmp_path)).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "other.gguf" in screen(pilot.app) and picker(pilot.app)._row is not None)
        go_on.set()
        await survey_ended(pilot)
        assert picker(pilot.app)._row.in_use
        await pilot.press("down")
        assert picker(pilot.app)._row.shown_name == "other.gguf"


async def test_the_mouse(tmp_path: Path) -> None:
    other = has_run(tmp_path, tiny_gguf.write(tmp_path / "other.gguf", "llama"))
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        await until(pilot, lambda: "other.gguf" in screen(pilot.app))
        await survey_ended(pilot)  # else lines move
        line = next(i for i, text in enumerate(screen(pilot.app).splitlines()) if "other.gguf" in text)
        await pilot.click(offset=(10, line))
        await pilot.pause(0.1)
        assert isinstance(pilot.app.screen, ModelPicker) and pilot.app.screen._row.name == str(other)
        pilot.app.screen._options.moved = math.inf  # it came under the mouse while that was clicked
        await pilot.click(offset=(10, line))
        await pilot.pause(0.1)
        assert isinstance(pilot.app.screen, ModelPicker)
        pilot.app.screen._options.moved = 0.0
        await pilot.click(offset=(10, line))
        await until(pilot, lambda: session.loads[-1].model == str(other) and idle(pilot.app))
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelPicker) and "Esc leave" in screen(pilot.app))
        lines = screen(pilot.app).splitlines()
        line = next(i for i, text in enumerate(lines) if "Esc leave" in text)
        await pilot.click(offset=(lines[line].index("Esc leave") + 1, line))
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)


@pytest.mark.parametrize("text", ["hf:owner/unknown", "/no/such/file.gguf", "nonsense"])
async def test_what_no_line_is_about_is_taken_as_it_is_written(text: str, tmp_path: Path, hub: Hub) -> None:
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await open_list(pilot)
        await search(pilot, text)
        await pilot.press("enter")
        if text.startswith("hf:"):
            await until(pilot, lambda: isinstance(pilot.app.screen, Question))
            await pilot.press("enter")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1 and idle(pilot.app))
        await until(pilot, lambda: re.search("no access|no such|not found", notices(pilot.app)[-1]) is not None)
        assert len(session.loads) == 1 and session.info is not None
