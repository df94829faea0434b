"""Slash commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, answers, chat, idle, notices, ready, screen, submit, until

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf

from specee.app.chat.history.store import Store
from specee.app.options import ChatOptions, remember
from specee.app.tui.app import ChatApp
from specee.app.tui.commands import Commands
from specee.app.tui.prompt_input import PromptInput


async def test_commands() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/policy specee:margin@0.3")
        await submit(pilot, "/policy nonsense")
        await submit(pilot, "/what")
        await pilot.pause(0.1)
        shown = "\n".join(notices(pilot.app))
        assert (
            "policy specee:margin@0.3" in shown and "unknown policy" in shown and "there is no command /what" in shown
        )
        await submit(pilot, "Hi")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert session.sent[1][1].policy.label == "specee:margin@0.3"
        await submit(pilot, "/new")
        await until(pilot, lambda: session.chat is None)
        await pilot.pause(0.1)
        assert answers(pilot.app) == []
        await submit(pilot, "/quit")
        await pilot.pause(0.1)
    assert pilot.app.return_code == 0 and session.closes


async def test_commands_are_completed_and_listed() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("/", "s", "u")
        await pilot.pause(0.05)
        assert "replace the oldest turns by a summary" in screen(pilot.app)
        await pilot.press("tab")
        assert pilot.app.query_one(PromptInput).text == "/summarize "
        await submit(pilot, "/help")
        await pilot.pause(0.1)
        assert "/export" in "\n".join(notices(pilot.app))


async def test_a_chat_is_renamed() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/rename early")
        await until(pilot, lambda: "this chat is empty" in screen(pilot.app))
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/rename  About   foxes ")
        await until(pilot, lambda: "> About foxes" in screen(pilot.app))
        assert [one.title for one in session.store.chats(5)] == ["About foxes"]
        await submit(pilot, "/rename")
        await until(pilot, lambda: "no title given" in screen(pilot.app))


@pytest.mark.parametrize(
    ("written", "completed"),
    [
        ("/model qw", "/model qwen"),
        ("/model tinyl", "/model tinyllama-1.1b"),
        ("/model llama3.2-1", "/model llama3.2-1b"),
        ("/pull mistral-", "/pull mistral-7b"),
        ("/set drafter tiny", "/set drafter tinyllama-1.1b"),
        ("/set dr", "/set drafter"),
        ("/set tem", "/set temperature"),
        ("/view tokens", "/view tokens"),
        ("/view col", "/view columns"),
        ("/policy pip", "/policy pipelined"),
        ("/theme dracu", "/theme dracula"),
        ("/persona tu", "/persona tutor"),
        ("/model nothing-like-it", "/model nothing-like-it"),
        ("/mod", "/model "),
        ("model qw", "model qw"),
    ],
)
async def test_what_follows_a_command_is_completed(written: str, completed: str) -> None:
    async with ChatApp(FakeSession(), ChatOptions(), {"tutor": "Explain."}).run_test() as pilot:
        await ready(pilot)
        prompt = pilot.app.query_one(PromptInput)
        prompt.write(written)
        await pilot.pause(0.05)
        await pilot.press("tab")
        assert prompt.text == completed


async def test_export(tmp_path: Any) -> None:
    session = FakeSession("Look: `this`")
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        for name in ("chat.md", "chat.json"):
            await submit(pilot, f"/export {tmp_path / name}")
            await until(pilot, lambda name=name: (tmp_path / name).exists())
        assert "`this`" in (tmp_path / "chat.md").read_text() and '"branch"' in (tmp_path / "chat.json").read_text()
        await submit(pilot, f"/export {tmp_path / 'no' / 'such'}")
        await until(pilot, lambda: "there is no such folder" in " ".join(screen(pilot.app).split()))
        await submit(pilot, f"/export {tmp_path / 'chat.md'}")
        await until(pilot, lambda: "already there" in " ".join(screen(pilot.app).split()))


async def test_settings_of_a_chat() -> None:
    session = FakeSession()
    async with ChatApp(session, ChatOptions(), {"tutor": "Explain."}).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "/threshold 0.4")
        await until(pilot, lambda: "auto has no threshold" in screen(pilot.app))
        for line in ("/set temperature 0.1", "/set seed 3", "/persona tutor", "/policy exact", "/threshold 0.4"):
            await submit(pilot, line)
        await submit(pilot, "/set temperature hot")
        await pilot.pause(0.1)
        assert "bad value" in screen(pilot.app)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        asked = session.asked[0]
        assert asked.messages[0].content == "Explain."
        assert (asked.options.sampling.temperature, asked.options.sampling.seed) == (0.1, 3)
        assert asked.options.policy.threshold == 0.4 and session.chat is not None
        assert session.chat.options["temperature"] == 0.1
        await submit(pilot, "/theme textual-light")
        await pilot.pause(0.1)
        assert pilot.app.theme == "textual-light"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set temperature -1", "temperature: '-1' is not a number from 0 to 10"),
        ("/set temperature nan", "temperature: 'nan' is not a number from 0 to 10"),
        ("/set temperature", "temperature: '' is not a number from 0 to 10"),
        ("/set top-p inf", "top_p: 'inf' is not a number from 0 to 1"),
        ("/set min_p 1e400", "min_p: '1e400' is not a number from 0 to 1"),
        ("/set seed -1", "seed: '-1' is not a whole number from 0 to 4294967295"),
        ("/set seed x", "'x' is not a whole number from 0 to 4294967295; /set seed random takes the default"),
        ("/set top-k x", "'x' is not a whole number from 0 to 1000000; /set top_k default takes the default"),
        ("/set drafter", "/set drafter of the model takes the default"),
        ("/set max-tokens 5", "max_tokens is an option: start specee-chat with --max-tokens"),
        ("/set ctx 512", "ctx has a command of its own: /ctx"),
        ("/set n_ctx 512", "ctx has a command of its own: /ctx"),
        ("/set system Be brief", "system has a command of its own: /system"),
        ("/set policy dense", "policy has a command of its own: /policy"),
        ("/set model x", "model has a command of its own: /model"),
        ("/set threads 2", "threads is an option: start specee-chat with --threads"),
        ("/set repeat_penalty 0", "repeat_penalty: '0' is not a number from 0.01 to 10"),
        ("/set repeat-last-n 1000000000", "repeat_last_n: '1000000000' is not a whole number from 0 to 8192"),
        ("/set presence_penalty 3", "presence_penalty: '3' is not a number from -2 to 2"),
        ("/set top_k 1.5", "top_k: '1.5' is not a whole number from 0 to 1000000"),
        (f"/set top_k {'9' * 5000}", "is not a whole number from 0 to 1000000"),
        ("/set logit_bias 1", "no such parameter: 'logit_bias'"),
        ("/threshold nan", "threshold: 'nan' is not a number from 0 to 1 or 'calibrated'"),
        ("/threshold", "threshold: '' is not a number from 0 to 1 or 'calibrated'"),
        ("/ctx -1", "context window: '-1' is not a whole number from 16 to 10000000"),
        ("/ctx 1e9", "context window: '1e9' is not a whole number from 16 to 10000000"),
        ("/resume 99999999999999999999", "chat: '99999999999999999999' is not a whole number from 1 to"),
        ("/resume x", "chat: 'x' is not a whole number from 1 to"),
    ],
)
async def test_values_that_cannot_be_change_nothing(line: str, says: str) -> None:
    async with chat(FakeSession()).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        before = pilot.app.options
        await submit(pilot, line)
        await until(pilot, lambda: any(says in notice for notice in notices(pilot.app)))
        assert pilot.app.options == before


NO_ARGUMENT = [
    "new",
    "earlier",
    "retry",
    "continue",
    "edit",
    "editor",
    "drop",
    "summarize",
    "restart",
    "race",
    "help",
    "keys",
    "quit",
]


@pytest.mark.parametrize("name", NO_ARGUMENT)
async def test_a_command_that_takes_no_argument_is_not_run_with_one(name: str) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        before, kept = len(notices(pilot.app)), session.chat
        for argument in ("smoking how?", "1", "\nand a line", "--force"):
            line = f"/{name} {argument}"
            await submit(pilot, line)
            await until(pilot, lambda before=before: len(notices(pilot.app)) > before)
            assert f"/{name} takes no argument" in notices(pilot.app)[-1]
            assert pilot.app.prompt.text == line and pilot.app.is_running
            before = len(notices(pilot.app))
            pilot.app.prompt.clear()
        assert len(session.sent) == 1 and session.chat == kept and len(session.loads) == 1


def test_which_commands_take_an_argument() -> None:
    takes = [
        "resume",
        "search",
        "export",
        "branch",
        "copy",
        "policy",
        "threshold",
        "set",
        "settings",
        "system",
        "persona",
        "prompt",
        "rename",
        "ctx",
        "model",
        "pull",
        "view",
        "theme",
    ]
    assert {f"/{name}" for name in NO_ARGUMENT + takes} == set(Commands.help_lines())


@pytest.mark.parametrize("word", ["none", "None", "random", "default", ""])
async def test_a_seed_can_be_taken_back(word: str) -> None:
    async with chat(FakeSession()).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, "/set seed 5")
        await until(pilot, lambda: pilot.app.options.sampling.seed == 5)
        await submit(pilot, f"/set seed {word}")
        await until(pilot, lambda: pilot.app.options.sampling.seed is None)
        await until(pilot, lambda: "seed random from the next answer on" in notices(pilot.app)[-1])


async def test_what_the_list_shows_can_be_set() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, "/set")
        await until(pilot, lambda: notices(pilot.app)[-1].startswith("parameters: "))
        shown = notices(pilot.app)[-1].removeprefix("parameters: ").split(", ")
        assert "seed random" in shown and "drafter of the model" in shown
        before = pilot.app.options
        for line in [f"/set {one}" for one in shown] + ["/set temperature 1", "/set temperature default"]:
            pilot.app.prompt.clear()
            await submit(pilot, line)
            await pilot.pause(0.05)
            assert not pilot.app.prompt.text, line
        assert pilot.app.options == before and len(session.loads) == 1
        await submit(pilot, "/set drafter none")
        await until(pilot, lambda: session.loads[-1].drafter == "none" and idle(pilot.app))
        await submit(pilot, "/set drafter of the model")
        await until(pilot, lambda: session.loads[-1].drafter is None and idle(pilot.app))
        await submit(pilot, "/set kv_type q8_0")
        await until(pilot, lambda: session.loads[-1].kv_type == "q8_0" and idle(pilot.app))
        await submit(pilot, "/set kv_type default")
        await until(pilot, lambda: session.loads[-1].kv_type == "f16" and idle(pilot.app))
        await submit(pilot, "/ctx 512")
        await until(pilot, lambda: session.loads[-1].n_ctx == 512 and idle(pilot.app))
        await submit(pilot, "/ctx default")
        await until(pilot, lambda: session.loads[-1].n_ctx is None and idle(pilot.app))


async def test_a_kept_chat_with_a_value_that_cannot_be_is_put_right(tmp_path: Path) -> None:
    session = FakeSession(store=Store(tmp_path / "history.sqlite"))
    kept = session.store.new_chat("Old", None, {**remember(ChatOptions(max_tokens=99)), "seed": -1})
    async with chat(session).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/resume {kept.id}")
        await until(pilot, lambda: any("seed -1 (not a whole number" in notice for notice in notices(pilot.app)))
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
    options = session.sent[0][1]
    assert options.sampling.seed is None and options.max_tokens == 99
    session.store.close()


@pytest.mark.parametrize("there", [True, False, None])
async def test_a_kept_chat_of_another_model_says_what_helps(there: bool | None, tmp_path: Path) -> None:
    """/model where its file is there, /pull where it can be fetched, another one where it is gone."""
    file = tmp_path / "mine.gguf"
    model = "hf:nobody/nothing" if there is None else str(file)
    if there:
        tiny_gguf.write(file, "llama")
    session = FakeSession(store=Store(tmp_path / "history.sqlite"))
    kept = session.store.new_chat("Old", None, remember(ChatOptions(), model))
    says = {
        True: f"{model} answered this chat; /model {model} takes it again",
        None: f"{model} answered this chat and is not here; {session.model} does now, or /pull {model} downloads it",
        False: f"{model} cannot answer this chat any more (model not found); {session.model} does now, or /model NAME",
    }
    async with chat(session).run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/resume {kept.id}")
        await until(pilot, lambda: says[there] in " ".join(notices(pilot.app)))
    session.store.close()


async def test_the_palette_has_its_own_keys() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
