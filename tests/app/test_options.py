"""Options stand before a command or after it, or are refused; what --help says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from specee.app import options
from specee.app.cli.program import program
from specee.app.cli.shared_options import CHAT, EVERYWHERE, SETTINGS
from specee.predictors.calibration.settings import Settings

VALUES = {
    "model": "m.gguf",
    "drafter": "small.gguf",
    "policy": "exact",
    "max_tokens": 7,
    "think": "off",
    "think_tokens": 100,
    "temperature": 0.25,
    "repeat_penalty": 1.5,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.25,
    "seed": 11,
    "system": "Be brief.",
    "ctx": 512,
    "kv_type": "q8_0",
    "threads": 3,
    "gpu_layers": 2,
    "rpc": "127.0.0.1:50052",
    "device": "RPC0",
    "tensor_split": "3,1",
    "cpu_fallback": True,
    "threshold": 0.5,
    "rule": "margin",
    "kv": "propagate",
    "acceptance": "rejection",
    "draft_length": 2,
    "early_rejection": True,
    "no_chats": True,
    "max_pending": 5,
    "data_dir": "/somewhere",
    "as_json": True,
    "offline": True,
    "yes": True,
    "when_full": "drop",
    "ascii": "on",
}
"""A value for each option that a command and the program have in common."""
ARGUMENTS = {"name": "some-model", "chat": "12", "chats": "12", "words": "sky", "shell": "bash"}


def leaves(group: click.Group = program, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


def find(path: tuple[str, ...]) -> click.Command:
    found: click.Command = program
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def typed(option: click.Parameter) -> list[str]:
    name = max(option.opts, key=len)
    assert isinstance(option, click.Option)
    return [name] if option.is_flag else [name, str(VALUES.get(str(option.name), "1"))]


def arguments(command: click.Command) -> list[str]:
    return [ARGUMENTS[str(p.name)] for p in command.params if isinstance(p, click.Argument) and p.required]


LEAVES = list(leaves())
GROUPS = [("models",), ("history",)]
SHARED = [
    pytest.param(path, option, id=" ".join([*path, option.opts[-1]]))
    for path in LEAVES
    for option in find(path).params
    if option.name in VALUES and isinstance(option, click.Option)
]
STRANGERS = [
    pytest.param(path, option, id=" ".join([*path, option.opts[-1]]))
    for path in LEAVES
    for option in program.params
    if option.name not in {p.name for p in find(path).params} | {"version"}
]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What the command at `path` would be called with, for a command line."""
    monkeypatch.setenv("SPECEE_DATA_DIR", str(tmp_path))

    def run(path: tuple[str, ...], *line: str) -> dict[str, Any]:
        received: list[dict[str, Any]] = []
        with monkeypatch.context() as patched:
            patched.setattr(find(path), "callback", lambda *context, **values: received.append(values) or 0)
            program.main([*line], prog_name="specee-chat", standalone_mode=False)
        assert len(received) == 1
        return received[0]

    return run


@pytest.mark.parametrize(("path", "option"), SHARED)
def test_before_a_command_is_as_good_as_after_it(received: Any, path: tuple[str, ...], option: click.Parameter) -> None:
    rest = arguments(find(path))
    after = received(path, *path, *typed(option), *rest)
    assert after[str(option.name)] == VALUES[str(option.name)]
    assert received(path, *typed(option), *path, *rest) == after
    if len(path) > 1:  # between a group and its command
        assert received(path, path[0], *typed(option), *path[1:], *rest) == after


def test_what_is_nearest_to_the_command_wins(received: Any, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("ctx = 100\n")
    path = ("models", "show")
    assert received(path, *path)["ctx"] == 100
    assert received(path, "--ctx", "200", *path)["ctx"] == 200
    assert received(path, "--ctx", "200", "models", "--ctx", "300", "show")["ctx"] == 300
    assert received(path, "--ctx", "200", "models", "--ctx", "300", "show", "--ctx", "400")["ctx"] == 400


@pytest.mark.parametrize(("path", "option"), STRANGERS)
def test_an_option_that_means_nothing_is_refused(received: Any, path: tuple[str, ...], option: click.Parameter) -> None:
    rest = arguments(find(path))
    says = re.escape(f"{max(option.opts, key=len)} means nothing to 'specee-chat {' '.join(path)}'")
    for line in ([*typed(option), *path, *rest], [*path, *typed(option), *rest]):
        with pytest.raises(click.UsageError, match=says):
            received(path, *line)


def test_an_unknown_option_is_still_unknown(received: Any) -> None:
    with pytest.raises(click.NoSuchOption, match="--nonsense"):
        received(("paths",), "paths", "--nonsense")


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_defaults_in_config_toml_are_never_refused(received: Any, tmp_path: Path, path: tuple[str, ...]) -> None:
    more: dict[str, Any] = {"persona": "tutor", "no_history": True, "plain": True, "stats": True}
    given = {name: (VALUES | more)[name] for name in SETTINGS}
    lines = [
        f"{name.replace('_', '-')} = {str(value).lower() if value is True else repr(value)}"
        for name, value in given.items()
    ]
    (tmp_path / "config.toml").write_text("\n".join(lines) + '\n[personas]\ntutor = "Explain."\n')
    values = received(path, *path, *arguments(find(path)))
    for name in values.keys() & VALUES.keys() & SETTINGS:
        assert values[name] == VALUES[name]


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_a_group_alone_lists(received: Any, group: tuple[str, ...]) -> None:
    path = (*group, "list")
    assert received(path, *group) == received(path, *path)
    assert received(path, "--json", *group) == received(path, *group, "--json") == received(path, *path, "--json")
    with pytest.raises(click.UsageError, match="--temperature means nothing"):
        received(path, "--temperature", "1", *group)


def test_every_command_takes_what_holds_everywhere() -> None:
    for path in [*LEAVES, *GROUPS]:
        assert {option.name for option in EVERYWHERE} <= {option.name for option in find(path).params}


# ---- help -----------------------------------------------------------------------------------------------------------

PRIVATE = re.compile(
    r"\b(boundar(y|ies)|climbs?|flights?|land(s|ed)?|looks? at|rises?|referee|said|settled?s?|shelf|opening"
    r"|took|withdrawn?|artifacts?|lens|probe[sd]?|armed|rows?|unsettled|look)\b"
    r"|\bwords? (leave|stop|are|may|that)|leaves? early",
    re.IGNORECASE,
)
"""Terms of the code, and words we once had for them; a reader of --help knows none of them."""


def help_of(path: tuple[str, ...]) -> str:
    done = CliRunner().invoke(program, [*path, "--help"], prog_name="specee-chat")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("path", [(), *GROUPS, *LEAVES], ids=" ".join)
def test_help_is_plain_and_has_an_example(path: tuple[str, ...]) -> None:
    text = help_of(path)
    assert not PRIVATE.search(text), PRIVATE.search(text)
    usage, _, rest = text.partition("\n")
    assert usage.startswith(f"Usage: {' '.join(['specee-chat', *path])}")
    assert " ".join(["specee-chat", *path]) in rest
    assert "..." not in re.sub(r'"\.\.\."|[A-Z]\.\.\.', "", text), "a line of the list of commands is cut short"


@pytest.mark.parametrize("path", [(), *LEAVES], ids=" ".join)
def test_help_lists_what_means_something_there(path: tuple[str, ...]) -> None:
    text = " ".join(help_of(path).split())
    for option in find(path).params:
        if isinstance(option, click.Option):
            assert option.hidden or f" {option.opts[-1]} " in text
            assert option.hidden or option.is_flag or option.metavar, "a value needs a name"


def test_help_names_the_defaults() -> None:
    text = " ".join(help_of(()).split())
    sampling = options.Sampling()
    for name, value in (
        ("--temperature", sampling.temperature),
        ("--top-k", sampling.top_k),
        ("--max-tokens", options.ChatOptions.max_tokens),
        ("--ctx", options.DEFAULT_CTX),
        ("--policy", options.PolicyChoice.name),
    ):
        assert re.search(rf" {name} \w+ [^\[]*\[default: {value}\]", text), name
    assert "[default: 128]" in help_of(("bench",)) and "[default: 0.6]" not in help_of(("bench",))
    assert f"{Settings().tokens}, or what {Settings().seconds / 60:.0f} minutes" in " ".join(
        help_of(("calibrate",)).split()
    )


def test_values_for_all_shared_options_are_tried() -> None:
    assert {str(option.name) for option in CHAT} <= VALUES.keys()


@pytest.mark.parametrize("choose", ["/model", "--model"])
def test_a_chat_whose_model_is_gone_says_what_helps(choose: str) -> None:
    """On the screen a command, for a script an option."""
    from specee.app.cli.open_session import _with_model_of

    values = {"model": None, "drafter": None}
    answering, lines = _with_model_of(options.Recalled(options.ChatOptions(), "/no/such.gguf"), values, values, choose)
    assert answering == values
    assert lines == (
        f"/no/such.gguf cannot answer it any more (model not found); smollm2-135m does now, or {choose} NAME",
    )
