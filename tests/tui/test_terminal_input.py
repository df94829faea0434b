"""What the terminal sends: any bytes, in any pieces."""

from __future__ import annotations

import random
from typing import Any

import pytest
from textual.events import Key, Paste

from specee.app.tui import terminal_input
from specee.app.tui.terminal_input import LARGE, MARK_SECONDS, STALL_SECONDS, InputDecoder, InputParser

START, END = "\x1b[200~", "\x1b[201~"


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(terminal_input, "get_time", lambda: self.now)
        monkeypatch.setattr("textual._parser.get_time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def told(messages: Any) -> list[str]:
    """Keys by their names, pastes as >text<."""
    kinds = (Key, Paste)
    return [m.key if isinstance(m, Key) else f">{m.text}<" for m in messages if isinstance(m, kinds)]


def feed(parser: InputParser, *pieces: str) -> list[str]:
    return [one for piece in pieces for one in told(parser.feed(piece))]


def test_bytes_that_are_not_utf8_are_western(clock: Clock) -> None:
    decoder = InputDecoder()
    assert decoder.decode("café €".encode()) == "café €"
    assert decoder.decode(b"caf\xe9 \x93x\x94") == "café “x”"
    assert decoder.decode(b"\x9b\xff\xc0\xaf\x81") == "\u203aÿÀ¯\ufffd"
    assert [decoder.decode(bytes([byte])) for byte in "é€".encode()] == ["", "é", "", "", "€"]
    assert decoder.decode(b"\xe9") == decoder.tick() == ""
    clock.now += 1
    assert decoder.tick() == "é" and decoder.tick() == ""
    assert decoder.decode(b"a") == "a"


PARTS = [*"\x1b[<MmutROA~?;:01é\u0661\x07", "$y", "48;", "99999999", "-1", "\x1b]", START, END]
PARTS += ["\x1b[48;0;0;0;0t", "\x1b[48;24;80;0;0t", "\x1b[<0;5;5M", "\x1b[1114112u", "\x1b[:55296;1u", "\x1b[?2048;2$y"]


def test_no_sequences_are_an_error() -> None:
    draw = random.Random(1)
    for _ in range(20_000):
        parser = InputParser()
        told(parser.feed("".join(draw.choices(PARTS, k=10))))
        told(parser.tick())


def test_a_key_that_there_is_not_leaves_those_around_it(clock: Clock) -> None:
    assert feed(InputParser(), "a\x1b[99999999;1ub\x1b[:;1uc") == ["a", "b", "c"]


def test_no_bytes_are_an_error() -> None:
    draw = random.Random(1)
    for _ in range(300):
        decoder, parser = InputDecoder(), InputParser()
        for _ in range(5):
            data = draw.randbytes(draw.randrange(40))
            if text := decoder.decode(data):
                told(parser.feed(text))


@pytest.mark.parametrize(
    ("pasted", "text"),
    [
        ("plain", "plain"),
        ("one\rtwo\r\nthree\n\tfour", "one\ntwo\nthree\n\tfour"),
        ("\x1b[31mred\x1b[0m [1] x\x1b", "[31mred[0m [1] x"),
        ("a\x03b\x04c\x07d\x11e\x1af\x7fg\x00h\x9bi\x1b]0;title\x07\x1bOP\x1b[A", "abcdefghi]0;titleOP[A"),
        ("\x1b\x1b[20\x1b[200~x\x1b[<0;1;1M\x1b[2", "[20[200~x[<0;1;1M[2"),
        ("é€😀 👩‍💻", "é€😀 👩‍💻"),
    ],
)
def test_all_of_a_paste_is_text_in_whatever_pieces_it_comes(pasted: str, text: str, clock: Clock) -> None:
    sent = f"{START}{pasted}{END}x"
    assert feed(InputParser(), sent) == [f">{text}<", "x"]
    assert feed(InputParser(), *sent) == [f">{text}<", "x"]
    for at in range(1, len(sent)):
        assert feed(InputParser(), sent[:at], sent[at:]) == [f">{text}<", "x"]


def test_a_large_paste_is_one(clock: Clock) -> None:
    pasted = "\x1b[32mok\x1b[0m\x03 and on\r" * 50_000
    sent = START + pasted + END
    [paste] = feed(InputParser(), *(sent[at : at + 4095] for at in range(0, len(sent), 4095)))
    assert paste == ">" + "[32mok[0m and on\n" * 50_000 + "<"


def test_pastes_after_each_other(clock: Clock) -> None:
    assert feed(InputParser(), f"a{START}b{END}{START}c{END}\x1b[A{START}{END}d") == ["a", ">b<", ">c<", "up", "d"]


def test_a_paste_whose_end_is_lost_is_over_after_a_while(clock: Clock) -> None:
    parser = InputParser()
    assert feed(parser, f"{START}one\x03two\x1b[20") == []
    clock.now += STALL_SECONDS / 2
    assert told(parser.tick()) == []
    clock.now += STALL_SECONDS
    assert told(parser.tick()) == [">onetwo[20<"]
    assert feed(parser, "a", "\x03", END, "b") == ["a", "ctrl+c", "b"]


def test_alt_with_a_digit_has_a_name(clock: Clock) -> None:
    assert feed(InputParser(), "\x1b1", "\u00a1", "1") == ["alt+1", "inverted_exclamation_mark", "1"]


def test_escape_is_a_key_and_sequences_are(clock: Clock) -> None:
    parser = InputParser()
    assert feed(parser, "\x1b") == []
    clock.now += 0.11
    assert told(parser.tick()) == ["escape"]
    assert feed(parser, "\x1b", "[", "A", "\x1b[", "2", "~", "\x1bOP") == ["up", "insert", "f1"]
    assert feed(parser, "\x1b[2") == []
    clock.now += MARK_SECONDS
    assert told(parser.tick())[-2:] == ["left_square_bracket", "2"]
    assert feed(parser, "\x1b", f"{START}x{END}y") == ["escape", ">x<", "y"]


def test_keys_in_a_paste_without_marks_are_none(clock: Clock) -> None:
    def late(text: str) -> list[str]:
        clock.now += 1
        return feed(parser, text)

    parser = InputParser()
    assert late("a line of a log\x03 and more\r") == [">a line of a log and more\n<"]
    assert late("\x03") == ["ctrl+c"]
    assert late("x" * LARGE + "\x03") == [f">{'x' * LARGE}<"]
    assert feed(parser, "\x07and on") == [">and on<"]
    assert late("\x07") == ["ctrl+g"]
    assert late("\x1b]0;a title\x07of a window") == [">]0;a titleof a window<"]
    assert late("typed ahead, and sent\r")[-1] == "enter"
    assert late("typed ahead, and quit\x03")[-1] == "ctrl+c"
    assert late("ab\x15c") == ["a", "b", "ctrl+u", "c"]
