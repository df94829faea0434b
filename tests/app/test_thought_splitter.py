"""Thoughts are told from answers, wherever the stream is cut."""

from __future__ import annotations

import random

import pytest

from specee.app.engine.thinking import APRIEL, COHERE, GRANITE, HARMONY, KNOWN, SOLAR
from specee.app.engine.thought_splitter import Place, ThoughtForm, ThoughtSplitter

TAGS = ThoughtForm("<think>", "</think>", "<think>\n", "\n</think>\n\n", heads=(("<response>", "</response>"),))


def split(form: ThoughtForm | None, pieces: list[str], place: Place = "beginning", **how: bool) -> tuple[str, str]:
    """Thought and answer."""
    splitter = ThoughtSplitter(form, place, **how)
    found = [part for piece in pieces for part in splitter.add(piece)] + splitter.end()
    return "".join(t for c, t in found if c == "thought"), "".join(t for c, t in found if c == "answer")


@pytest.mark.parametrize(
    ("form", "place", "text", "thought", "answer"),
    [
        (TAGS, "beginning", "<think>\nOne, two.\n</think>\n\nThree.", "One, two.", "Three."),
        (TAGS, "beginning", " \n<think>One</think>Two", "One", "Two"),
        (TAGS, "beginning", "<think>\n\n</think>\n\nTwo", "", "Two"),  # empty
        (TAGS, "beginning", "<think></think>Two", "", "Two"),
        (TAGS, "beginning", "No thought, and <think>a tag</think>.", "", "No thought, and <think>a tag</think>."),
        (TAGS, "beginning", "  indented", "", "  indented"),
        (TAGS, "beginning", "<thinker> and </think>", "", "<thinker> and </think>"),
        (TAGS, "beginning", "<div>", "", "<div>"),
        (TAGS, "beginning", "<thi", "", "<thi"),
        (TAGS, "beginning", "", "", ""),
        (TAGS, "beginning", " \n ", "", " \n "),
        (TAGS, "beginning", "<think>", "", ""),
        (TAGS, "beginning", "<think>\nNever closed. ", "Never closed. ", ""),
        (TAGS, "beginning", "<think>\nCut in the mark</thi", "Cut in the mark</thi", ""),
        (TAGS, "thought", "One\n</think>\n\nTwo", "One", "Two"),  # the prompt has begun it
        (TAGS, "thought", "\n<think>\nOne\n</think>\nTwo", "One", "Two"),  # and so has the model
        (TAGS, "thought", "</think>Two", "", "Two"),
        (TAGS, "thought", "One </think> </think>\nTwo", "One", "Two"),  # closed twice
        (TAGS, "thought", "a <think> b </think> c </think> d", "a <think> b", "c </think> d"),  # nested
        (TAGS, "beginning", "<think>a < b </ c</think>d", "a < b </ c", "d"),
        (TAGS, "beginning", "<think>a</think><think>b</think>c", "a\n\nb", "c"),  # repeated
        (TAGS, "beginning", "<think></think>\n<think>b</think>c", "b", "c"),
        (TAGS, "beginning", "<think>a</think>\nb <think>c</think>", "a", "b <think>c</think>"),
        (TAGS, "beginning", "<think>a</think><response>\nb</response>\n", "a", "b"),
        (TAGS, "beginning", "<think>a</think><response>b", "a", "b"),
        (TAGS, "beginning", "<response>b</response>", "", "b"),
        (TAGS, "beginning", "<think>a\n\n  b\n</think>\n\n    code", "a\n\n  b", "code"),
        (TAGS, "answer", "\n\n<think>Two", "", "<think>Two"),
        (GRANITE, "beginning", "Here is my thought process:\nOne\n\nHere is my response:\nTwo", "One", "Two"),
        (GRANITE, "beginning", "Here is my answer: Two", "", "Here is my answer: Two"),
        (APRIEL, "thought", "One\n[BEGIN FINAL RESPONSE]\nTwo\n[END FINAL RESPONSE]\n", "One", "Two\n"),
        (COHERE, "beginning", "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "a", "b"),
        (SOLAR, "beginning", "<|think|>a<|end|><|begin|>assistant<|content|>b", "a", "b"),
        (
            HARMONY,
            "beginning",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
            "a",
            "b",
        ),
        (
            HARMONY,
            "beginning",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>c<|end|><|start|>assistant<|channel|>final<|message|>d",
            "a\n\nc",
            "bd",
        ),
        (HARMONY, "beginning", "<|channel|>final<|message|>b", "", "b"),
        (None, "beginning", "<think>a</think>b", "", "<think>a</think>b"),
    ],
)
def test_every_cut_of_the_stream(form: ThoughtForm | None, place: Place, text: str, thought: str, answer: str) -> None:
    whole = (thought, answer)
    assert split(form, [text], place) == whole
    assert split(form, list(text), place) == whole
    for i in range(len(text)):
        for j in range(i, len(text), 3):
            assert split(form, [text[:i], text[i:j], text[j:]], place) == whole, (text[:i], text[i:j])


@pytest.mark.parametrize("form", KNOWN, ids=lambda form: form.begin)
def test_every_form_as_its_template_writes_it(form: ThoughtForm) -> None:
    text = (form.opening or form.begin) + "One\n\ntwo" + (form.closing or form.end) + "Three."
    assert split(form, list(text)) == ("One\n\ntwo", "Three.")
    assert split(form, list(text.removeprefix(form.opening or form.begin)), "thought") == ("One\n\ntwo", "Three.")


def test_random_texts_lose_nothing_and_every_cut_gives_the_same() -> None:
    rng = random.Random(1)
    parts = ["<think>", "</think>", "<", "think", ">", "/", " ", "\n", "x", "<response>", "</response>", "é"]
    for _ in range(2000):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        place: Place = rng.choice(["beginning", "thought", "answer"])
        goes_on = rng.random() < 0.3
        whole = split(TAGS, [text], place, goes_on=goes_on)
        cuts = sorted(rng.choices(range(len(text) + 1), k=3))
        cut = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(TAGS, cut, place, goes_on=goes_on) == whole, (text, place)
        letters = [c for c in text if c in "xé"]
        assert sorted(c for c in "".join(whole) if c in "xé") == sorted(letters)


def test_text_that_goes_on_keeps_its_spaces() -> None:
    assert split(TAGS, [" more\n</think>\n\n b"], "thought", goes_on=True) == (" more", "b")
    assert split(TAGS, ["\n\n- b"], "answer", goes_on=True) == ("", "\n\n- b")


def test_what_is_certain_is_not_held_back() -> None:
    splitter = ThoughtSplitter(TAGS)
    assert splitter.add("<thi") == [] and splitter.place == "beginning"
    assert splitter.add("nk>") == [("thought", "")] and splitter.place == "thought"
    assert splitter.add("\nOne ") == [("thought", "One")]
    assert splitter.add("two <") == [("thought", " two")]
    assert splitter.add("b>") == [("thought", " <b>")]
    assert splitter.add("</think>") == [("thought", "")] and splitter.place == "beginning"
    assert splitter.add("\n\n") == []
    assert splitter.add("Two ") == [("answer", "Two ")] and splitter.place == "answer"


def test_nothing_is_read_behind_a_thought_where_it_stops() -> None:
    splitter = ThoughtSplitter(TAGS, "thought", stops=True)
    assert splitter.add('One</think>{"a"') == [("thought", "One")]
    assert splitter.ended and splitter.left == '{"a"'
