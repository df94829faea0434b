"""Values that cannot be are refused at every entrance, with what they may be, and never reach the engine."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from specee.app import settings
from specee.app.chat.history import export
from specee.app.chat.history.store import Store
from specee.app.cli import config
from specee.app.cli.option import Setting
from specee.app.cli.program import program
from specee.app.errors import USAGE, AppError, as_app_error
from specee.app.formatting import to_json
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling, recall, remember

REFUSED = [
    ("temperature", "nan", "a number from 0 to 10"),
    ("temperature", "inf", "a number from 0 to 10"),
    ("temperature", "-1", "a number from 0 to 10"),
    ("temperature", "-0.0001", "a number from 0 to 10"),
    ("temperature", "1e400", "a number from 0 to 10"),
    ("temperature", "hot", "a number from 0 to 10"),
    ("temperature", "", "a number from 0 to 10"),
    ("temperature", "1_0", "a number from 0 to 10"),
    ("temperature", "\uff10.5", "a number from 0 to 10"),
    ("temperature", "\u0661", "a number from 0 to 10"),
    ("temperature", "0,5", "a number from 0 to 10"),
    ("temperature", " 1", "a number from 0 to 10"),
    ("temperature", "0x1", "a number from 0 to 10"),
    ("top-p", "inf", "a number from 0 to 1"),
    ("top-p", "1.0001", "a number from 0 to 1"),
    ("min-p", "-nan", "a number from 0 to 1"),
    ("repeat-penalty", "0", "a number from 0.01 to 10"),
    ("repeat-penalty", "-inf", "a number from 0.01 to 10"),
    ("top-k", "-1", "a whole number from 0 to 1000000"),
    ("top-k", "2.5", "a whole number from 0 to 1000000"),
    ("top-k", "1e3", "a whole number from 0 to 1000000"),
    ("seed", "1.0", "a whole number from 0 to 4294967295"),
    ("seed", "1_000", "a whole number from 0 to 4294967295"),
    ("seed", "\uff15", "a whole number from 0 to 4294967295"),
    ("ctx", "4096.0", "a whole number from 16 to 10000000"),
    ("threshold", "0_1", "a number from 0 to 1 or 'calibrated'"),
    ("policy", "specee@0_1", "a number from 0 to 1 or 'calibrated'"),
    ("seed", "-1", "a whole number from 0 to 4294967295"),
    ("seed", str(2**32), "a whole number from 0 to 4294967295"),
    ("seed", "9" * 5000, "a whole number from 0 to 4294967295"),
    ("max-tokens", "0", "a whole number from 1 to 1000000"),
    ("max-tokens", "99999999999999999999", "a whole number from 1 to 1000000"),
    ("ctx", "0", "a whole number from 16 to 10000000"),
    ("ctx", str(2**31), "a whole number from 16 to 10000000"),
    ("threads", "0", "a whole number from 1 to 1024"),
    ("threads", str(2**64), "a whole number from 1 to 1024"),
    ("gpu-layers", str(2**31), "a whole number from 0 to 10000 or 'auto'"),
    ("gpu-layers", "all", "a whole number from 0 to 10000 or 'auto'"),
    *(("rpc", wrong, "HOST:PORT") for wrong in ("host", ":50052", "host:0", "host:65536", "a b:1", "::1:5", "[::1]")),
    *(("rpc", wrong, "HOST:PORT") for wrong in ("a:1,", "")),
    ("rpc", "a:1,a:1", "each once"),
    ("device", "RPC0,RPC0", "each once"),
    *(("tensor-split", wrong, "a number for each device") for wrong in ("0,0", "1,-1", "1,", "nan", "1,1e999", "half")),
    ("threshold", "nan", "a number from 0 to 1 or 'calibrated'"),
    ("threshold", "2", "a number from 0 to 1 or 'calibrated'"),
    ("draft-length", "8", "a whole number from 1 to 7"),
    ("max-pending", "0", "a whole number from 1 to 7"),
    ("rule", "best", "one of 'predictor', 'margin'"),
    ("kv", "", "one of 'propagate', 'complete'"),
    ("kv-type", "q4_0", "one of 'f16', 'q8_0'"),
    ("acceptance", "Exact", "one of 'exact', 'rejection', 'typical'"),
    ("when-full", "explode", "one of 'stop', 'drop', 'summarize'"),
    ("policy", "specee@nan", "a number from 0 to 1 or 'calibrated'"),
    ("policy", "fast", "choose from auto, dense"),
    ("model", "", "a name"),
]
"""An option, a value, and what the error says that it may be."""

OTHER_TYPES = [
    ("temperature", "true"),
    ("temperature", "[1]"),
    ("temperature", "{ a = 1 }"),
    ("temperature", "1979-05-27"),
    ("seed", "1.5"),
    ("seed", "false"),
    ("max-tokens", "inf"),
    ("ctx", "-inf"),
    ("model", "5"),
    ("model", "true"),
    ("policy", "1"),
    ("system", "5"),
    ("system", '"a\\u0000b"'),
    ("persona", "3"),
    ("offline", '"yes"'),
    ("no-history", "1"),
    ("stats", "0.0"),
    ("rule", "1"),
]
"""The same as TOML, of another type than the option's."""


def says(code: AppError) -> str:
    assert code.exit_code == USAGE and code.line.count("\n") == 0 and len(code.line) < 400
    return code.line


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_the_command_line_refuses(tmp_path: Path, name: str, value: str, allowed: str) -> None:
    line = ["--data-dir", str(tmp_path), f"--{name}={value}", "-p", "x"]
    with pytest.raises((click.BadParameter, AppError)) as caught:
        program.main(line, prog_name="specee-chat", standalone_mode=False)
    error = caught.value
    text = error.format_message() if isinstance(error, click.BadParameter) else says(error)
    assert allowed in text and len(text) < 300


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [("temperature", "1e0", 1.0), ("temperature", "+.5", 0.5), ("temperature", "2.", 2.0), ("seed", "+007", 7)],
)
def test_numbers_as_people_write_them(name: str, written: str, value: float) -> None:
    assert settings.check(settings.SAMPLING[name], name, written) == value


def test_what_no_entrance_refused_is_refused_in_our_words() -> None:
    for wrong in ({"model": ""}, {"n_ctx": 1}, {"threads": "4"}, {"offline": 2}):
        with pytest.raises(ValidationError) as caught:
            LoadOptions(**wrong)
        line = as_app_error(caught.value).line
        assert line.startswith(f"bad value: {next(iter(wrong))}: ")
        assert not any(word in line for word in ("Input", "Value error", "should", "pydantic", "nothing"))


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_the_config_file_refuses(tmp_path: Path, name: str, value: str, allowed: str) -> None:
    is_number = re.fullmatch(r"[+-]?(nan|inf|[0-9]+(\.[0-9]+)?(e[0-9]+)?)", value) and len(value) < 4300
    file = tmp_path / "config.toml"
    file.write_text(f"{name} = {value if is_number else json.dumps(value)}\n")
    with pytest.raises(AppError) as caught:
        config.read(file, program.params)
    line = says(caught.value)
    assert str(file) in line and f"{name}: " in line and allowed in line


@pytest.mark.parametrize(("name", "written"), OTHER_TYPES)
def test_the_config_file_refuses_other_types(tmp_path: Path, name: str, written: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"{name} = {written}\n")
    with pytest.raises(AppError) as caught:
        config.read(file, program.params)
    line = says(caught.value)
    assert str(file) in line and f"{name}: " in line and " is not " in line


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[personas]\n'' = 'x'", "[personas] has one whose name is empty"),
        (b"max-tokens = 5\nmax_tokens = 6\n", "stands there twice"),
        (b'persona = "tutor"\n', "'tutor' is not under [personas]"),
        (b"seed = " + b"9" * 5000, "too many digits"),
        (b"seed = 5 5", "it is not TOML: "),
        (b"x = " + b"[" * 100_000, "too deep"),
        (b"\xff\xfe", "it is not in UTF-8"),
        (b"[personas]\na = 3\n", "[personas] a: 3 is not text"),
        (b"personas = 3\n", "[personas] has lines"),
    ],
)
def test_a_broken_config_file_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(AppError) as caught:
        config.read(file, program.params)
    assert str(file) in says(caught.value) and part in caught.value.line


def test_a_config_file_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert config.read(file, program.params).defaults == {"seed": 3}


# ---- the values themselves -----------------------------------------------------------------------------------------

WRONG: list[Any] = [float("nan"), float("inf"), float("-inf"), -1, 10**30, "x", True, None, [1], {}, b"1"]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", settings.SAMPLING)
def test_no_sampling_is_made_with_a_value_that_cannot_be(name: str, wrong: Any) -> None:
    if (name == "seed" and wrong is None) or (name in ("presence_penalty", "frequency_penalty") and wrong == -1):
        return
    with pytest.raises(ValidationError) as caught:
        Sampling(**{name: wrong})
    with pytest.raises(ValidationError):
        replace(Sampling(), **{name: wrong})
    shown = as_app_error(caught.value)
    assert shown.exit_code == USAGE and name in shown.line


@pytest.mark.parametrize(
    "bias", [((-1, 1.0),), ((1, float("nan")),), ((1, 101.0),), ((1, 2, 3),), (("a", 1.0),), ((0, 0.0),) * 1025]
)
def test_a_bias_is_checked(bias: Any) -> None:
    with pytest.raises(ValidationError):
        Sampling(logit_bias=bias)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_ctx": 15},
        {"n_ctx": 2**31},
        {"threads": 0},
        {"threads": 1025},
        {"gpu_layers": -1},
        {"n_slots": 0},
        {"n_slots": 65},
        {"model": ""},
        {"model": "a\0b"},
        {"data_dir": "a\0b"},
        {"offline": "no"},
    ],
    ids=repr,
)
def test_no_model_is_loaded_with_a_value_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoadOptions(**wrong)


def test_a_file_name_may_have_any_bytes() -> None:
    assert LoadOptions(model="caf\udce9.gguf").model == "caf\udce9.gguf"


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"max_tokens": True}, {"top_logprobs": 21}, {"grammar": "a\0"}])
def test_no_answer_is_asked_for_with_a_value_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatOptions(**wrong)


@given(st.floats(0, 10) | st.sampled_from([1e-40, 1e-38, 5e-324, -0.0]))
def test_a_temperature_near_zero_is_zero(temperature: float) -> None:
    kept = Sampling(temperature=temperature).temperature
    assert kept == (temperature if temperature >= settings.LEAST_TEMPERATURE else 0.0)


def test_every_option_with_a_number_has_a_type_of_the_schema() -> None:
    def of(command: click.Command) -> list[click.Parameter]:
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        return [*command.params, *(parameter for child in inner for parameter in of(child))]

    for parameter in of(program):
        assert not isinstance(parameter.type, (click.types.IntParamType, click.types.FloatParamType)), parameter.name
    kinds = {str(p.name): p.type.kind for p in program.params if isinstance(p.type, Setting)}
    assert {name: kinds[name] for name in kinds.keys() & settings.SAMPLING.keys()}.items() <= settings.SAMPLING.items()
    hints = get_type_hints(Sampling, include_extras=True)
    for name, kind in settings.SAMPLING.items():
        assert hints[name] in (kind, kind | None)


# ---- chats that are kept -------------------------------------------------------------------------------------------

GOOD = {"temperature": 0.25, "seed": 7, "policy": "exact:margin", "max_tokens": 99}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[
            (name, wrong)
            for name in ("temperature", "seed", "repeat_penalty", "repeat_last_n")
            for wrong in (-1, "1", [])
        ],
        ("seed", 2**40),
        ("repeat_penalty", 0),
        ("repeat_last_n", 10**9),
        ("top_p", float("nan")),
        ("top_p", float("inf")),
        ("max_tokens", 0),
        ("max_tokens", None),
        ("max_tokens", True),
        ("policy", "fast"),
        ("policy", "specee@7"),
        ("policy", 3),
        ("policy", None),
        ("logit_bias", [[1]]),
        ("logit_bias", 3),
        ("model", 5),
        ("model", ""),
        ("drafter", {"a": 1}),
    ],
)
def test_a_kept_value_that_cannot_be_is_left_out_and_named(name: str, wrong: Any) -> None:
    recalled = recall({**GOOD, name: wrong})
    assert recalled.refused is not None and name in recalled.refused and "\n" not in recalled.refused
    default, rest = recall({}).options, recall({key: value for key, value in GOOD.items() if key != name})
    assert recalled.options == rest.options and rest.refused is None
    assert recall({}).refused is None and default == ChatOptions()


@pytest.mark.parametrize("column", ["", "{", "null", "[]", "3", '"x"', "9" * 5000, "[" * 100_000, "{}", b"\xff"])
def test_a_chat_whose_settings_are_broken_goes_on(tmp_path: Path, make_session: Any, column: Any) -> None:
    file = tmp_path / "history.sqlite"
    store = Store(file)
    chat = store.new_chat("Hi", None, remember(ChatOptions()))
    with sqlite3.connect(file) as database:
        database.execute("UPDATE chats SET options = ?", (column,))
    database.close()
    assert [found.id for found in store.chats()] == [chat.id]
    session = make_session(store=store)
    recalled = session.resume(chat.id)
    assert recalled.options == ChatOptions() and (recalled.refused is None) == (column == "{}")
    assert session.resume(chat.id).refused is None, "it was put right in the file"
    store.close()


def test_a_chat_with_a_bad_seed_answers_again(make_session: Any) -> None:
    session = make_session()
    dense = ChatOptions(policy=PolicyChoice("dense"))
    list(session.send("Hi", dense))
    assert session.chat is not None
    session.store.update_chat(session.chat.id, options={**remember(dense), "seed": -1})
    again = make_session(store=session.store)
    recalled = again.resume(session.chat.id)
    assert recalled.options == dense and "seed -1 (not a whole number from 0 to 4294967295)" in (recalled.refused or "")
    assert list(again.send("And?", recalled.options))
    assert again.chat is not None and again.chat.options is not None and again.chat.options["seed"] is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[("turns.stats", broken) for broken in ("", "{", "[]", "NaN", "{}", '{"prompt_tokens": 1, "tokens": "x"}')],
        ("turns.stats", '{"prompt_tokens": 1, "tokens": 1e999, "tokens_per_second": NaN}'),
        *[("turns.stats", f'{{"prompt_tokens": 1, "tokens": 2, "drafted": {d}}}') for d in ("5", '{"a": ["b"]}')],
        ("turns.depths", b"123"),
        ("turns.depths", "text"),
        ("turns.content", b"\xff\x00"),
        ("turns.created", "yesterday"),
        ("chats.title", b"\xff"),
        ("chats.system", b"\xff"),
        ("chats.updated", 1e300),
        ("chats.created", -1e300),
        ("chats.created", "now"),
    ],
)
def test_a_broken_value_in_the_file_closes_no_chat(tmp_path: Path, make_session: Any, column: str, value: Any) -> None:
    file = tmp_path / "history.sqlite"
    session = make_session(store=Store(file))
    list(session.send("Hi", ChatOptions(policy=PolicyChoice("dense"))))
    table, _, name = column.partition(".")
    with sqlite3.connect(file) as database:
        database.execute(f"UPDATE {table} SET {name} = ?", (value,))
    database.close()
    assert session.chat is not None
    session.resume(session.chat.id)
    assert len(session.branch) == 2 and session.context_tokens >= 0
    store = session.store
    exported = to_json(export.tree_object(store.chats()[0], store.tree(session.chat.id), session.branch))
    assert json.loads(exported, parse_constant=pytest.fail)["turns"] and export.markdown(session.chat, session.branch)
    list(session.send("And?", ChatOptions(policy=PolicyChoice("dense"))))
    store.close()


def test_bytes_that_are_no_text_are_shown_as_signs() -> None:
    assert settings.shown("\udce9") == "'\ufffd'" and settings.shown("é\ud800") == "'é\ufffd'"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (None, "null"),
        ([None, {"a": [False]}], "[null, {'a': [false]}]"),
        (1.0, "1.0"),
        ("True", "'True'"),
    ],
)
def test_values_are_shown_as_their_files_have_them(value: object, written: str) -> None:
    assert settings.shown(value) == written
