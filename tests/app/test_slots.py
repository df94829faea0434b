"""Several answers at once over a fake engine with several slots."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.app import memory
from specee.app.engine.client import EngineClient, EngineLostError, Silence
from specee.app.engine.loading import affordable_slots
from specee.app.engine.prefill import GROUP, MIN_CHUNK, Prefill, chunk_end
from specee.app.engine.protocol import Done, Failed, Generate, Message, PromptProgress, Started, TokenEvents
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice

Make = Callable[..., Any]
DENSE = ChatOptions(PolicyChoice("dense"))


class Asking:
    """An answerer that is run turn by turn, and what it sends."""

    def __init__(self, make_link: Make, backend: Any) -> None:
        self.backend = backend
        self.answerer = make_link(backend).answerer
        self.sent: list[Any] = []
        self.number = 0

    def ask(self, *texts: str, options: ChatOptions = DENSE, is_comparison: bool = False) -> int:
        """A chat of questions and answers in turns; the id of the request."""
        self.number += 1
        messages = tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
        request = Generate(self.number, messages, options, is_comparison=is_comparison)
        self.answerer.add(request, self.sent.append)
        return self.number

    def run(self) -> None:
        while self.answerer.busy:
            self.answerer.turn()

    def of(self, request: int) -> list[Any]:
        return [sent.message for sent in self.sent if sent.request == request]

    def text(self, request: int) -> str:
        events = [e for m in self.of(request) if isinstance(m, TokenEvents) for e in m.events]
        return "".join(event.text for event in events if event.state == "verified")

    def ended(self) -> list[int]:
        return [sent.request for sent in self.sent if isinstance(sent.message, (Done, Failed))]

    def stats(self, request: int) -> Any:
        assert isinstance(self.of(request)[-1], Done)
        return self.of(request)[-1].stats


@pytest.fixture
def asking(make_link: Make, make_backend: Make) -> Asking:
    return Asking(make_link, make_backend(n_slots=3))


def test_answers_run_side_by_side_and_the_rest_waits(asking: Asking) -> None:
    requests = [asking.ask(f"question {i}") for i in range(5)]
    asking.run()
    assert all(asking.text(request) == "Hello there." for request in requests)
    assert asking.ended() == requests
    assert set(asking.backend.together) == {2, 3}
    for request in requests:
        kinds = [type(message) for message in asking.of(request)]
        assert kinds[:3] == [PromptProgress, PromptProgress, Started] and kinds[-1] is Done
        assert set(kinds[3:-1]) == {TokenEvents}
    first_end = next(i for i, sent in enumerate(asking.sent) if isinstance(sent.message, Done))
    assert {sent.request for sent in asking.sent[:first_end]} == {1, 2, 3}, "as many as there are slots"


def test_a_long_prompt_is_read_between_the_steps_of_others(make_link: Make, make_backend: Make) -> None:
    asking = Asking(make_link, make_backend(b"x" * 100, n_ctx=2000, n_slots=2))
    short = asking.ask("Hi")
    for _ in range(3):
        asking.answerer.turn()
    long = asking.ask("y" * 1000)
    steps = []
    while not any(isinstance(message, Started) for message in asking.of(long)):
        before = len(asking.backend.engine.tokens)
        asking.answerer.turn()
        steps.append(len(asking.backend.engine.tokens) - before)
    assert steps == [1] * 8, "a step of the other answer for each chunk of 128"
    assert asking.backend.engine.slots[1].prefills[:3] == [128, 128, 128]
    asking.run()
    assert asking.text(short) == asking.text(long) == "x" * 100
    asking.ask("z" * 1000)
    asking.run()
    assert 512 in [n for engine in asking.backend.engine.slots for n in engine.prefills], "alone in large ones"


def test_prompts_that_are_read_take_turns(make_link: Make, make_backend: Make) -> None:
    asking = Asking(make_link, make_backend(n_ctx=2000, n_slots=2))
    long, short = asking.ask("y" * 1000), asking.ask("Hi")
    asking.run()
    assert asking.ended() == [short, long]


def test_a_cancelled_answer_frees_its_slot_and_disturbs_nobody(asking: Asking) -> None:
    a, b, c, waiting = (asking.ask(f"question {i}") for i in range(4))
    for _ in range(5):
        asking.answerer.turn()
    assert not asking.of(waiting)
    asking.answerer.cancellation.cancel(b)
    asking.answerer.turn()
    assert asking.stats(b).stop_reason == "cancelled" and asking.of(waiting)
    asking.run()
    assert asking.ended() == [b, a, c, waiting]
    assert [asking.text(request) for request in (a, c, waiting)] == ["Hello there."] * 3
    assert "Hello there.".startswith(asking.text(b)) and asking.text(b)


def test_a_request_that_is_cancelled_while_it_waits_takes_nobodys_slot(asking: Asking) -> None:
    asking.ask("first question")
    asking.run()
    others = [asking.ask(f"question {i}") for i in range(3)]
    waiting = asking.ask("something else")
    asking.answerer.turn()
    asking.answerer.cancellation.cancel(waiting)
    asking.answerer.turn()
    assert asking.ended()[1:] == [waiting]
    assert asking.stats(waiting).stop_reason == "cancelled" and asking.stats(waiting).prompt_tokens == 0
    asking.run()
    assert asking.ended()[2:] == others


def test_a_prompt_that_is_cancelled_while_it_is_read(make_link: Make, make_backend: Make) -> None:
    asking = Asking(make_link, make_backend(n_ctx=2000, n_slots=2))
    short, long = asking.ask("Hi"), asking.ask("y" * 1000)
    other = asking.backend.engine.slots[1]
    other.before_chunk = lambda done: asking.answerer.cancellation.cancel(long) if done >= 300 else None
    asking.run()
    assert asking.stats(long).stop_reason == "cancelled" and asking.text(short) == "Hello there."
    other.before_chunk = lambda done: None
    again = asking.ask("y" * 1000)
    asking.run()
    assert asking.text(again) == "Hello there."


def test_what_is_refused_is_that_requests_alone(asking: Asking) -> None:
    def refuse(messages: Any, *more: Any) -> str:
        if messages[-1].content == "bad":
            raise AppError("chat template", "refused")
        return make_text(messages, *more)

    make_text, asking.backend.format = asking.backend.format, refuse
    for slot in asking.answerer._slots:
        slot.backend.format = refuse
    good, bad, long, other = asking.ask("good"), asking.ask("bad"), asking.ask("x" * 600), asking.ask("other")
    asking.run()
    assert asking.of(bad) == [Failed("chat template", "refused")]
    (too_long,) = asking.of(long)
    assert too_long.title == "prompt too long" and not too_long.fatal
    assert asking.text(good) == asking.text(other) == "Hello there."


@pytest.mark.parametrize("what", ["window", "template", "policy", "sampler", "calibration"])
def test_what_is_refused_keeps_the_cache(
    make_link: Make, make_backend: Make, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The chat that has the only slot goes on as if nobody had asked."""
    asking = Asking(make_link, make_backend(n_slots=1, calibrated=False))
    (slot,) = asking.answerer._slots
    asking.ask("first question")
    asking.run()

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AppError("refused", what)

    with monkeypatch.context() as patch:
        if what in ("template", "policy", "sampler"):
            name = {"template": "format"}.get(what, what)
            patch.setattr(asking.backend, name, refuse)
            patch.setattr(slot.backend, name, refuse)
        text = "x" * 600 if what == "window" else "something else"
        refused = asking.ask(text, options=ChatOptions(PolicyChoice("exact" if what == "calibration" else "chain")))
        asking.run()
    assert [type(message) for message in asking.of(refused)] == [Failed]
    asking.ask("first question", "Hello there.", "and then?")
    asking.run()
    assert slot.engine.prefills[-1] < 20 < len(slot.engine.prompts[-1])


def test_an_engine_failure_ends_the_answers_that_it_hits(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = asking.ask("a"), asking.ask("b")
    for _ in range(3):
        asking.answerer.turn()
    engine = asking.backend.engine

    def fail(*arguments: Any) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(asking.answerer._scheduler, "_advance_together", fail)
        asking.answerer.turn()
    for request in (a, b):
        failures = [message for message in asking.of(request) if isinstance(message, Failed)]
        assert len(failures) == 1 and "out of luck" in failures[0].message and not failures[0].fatal
    assert not asking.answerer.busy and engine.slots[0].tokens == engine.slots[1].tokens == []
    c, d = asking.ask("a"), asking.ask("b")
    asking.run()
    assert asking.text(c) == asking.text(d) == "Hello there."


def test_a_failure_of_the_answerer_itself_is_told_to_all(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = asking.ask("a"), asking.ask("b")

    def fail(*arguments: Any) -> None:
        raise RuntimeError("a fault")

    asking.answerer.turn()
    with monkeypatch.context() as patch:
        patch.setattr(asking.answerer._scheduler, "turn", fail)
        asking.answerer.turn()
    assert asking.ended() == [a, b] and not asking.answerer.busy
    c = asking.ask("c")
    asking.run()
    assert asking.text(c) == "Hello there."


def test_chats_in_turns_keep_their_prefixes(asking: Asking) -> None:
    """Also when they begin alike, as chats with one system message do."""
    chats: list[list[str]] = [["a common beginning, one"], ["a common beginning, two"], ["a common beginning, three"]]
    for turn in range(3):
        for chat in chats:
            request = asking.ask(*chat)
            asking.run()
            stats = asking.stats(request)
            new = len("\0u:more\0a:") if turn else stats.prompt_tokens
            assert stats.reused == stats.prompt_tokens - new
            chat += [asking.text(request), "more"]


def test_a_new_chat_gets_the_slot_that_was_not_used_for_longest(asking: Asking) -> None:
    for text in ("first question", "second question", "third question"):
        asking.ask(text)
        asking.run()
    goes_on = asking.ask("first question", "Hello there.", "more")
    asking.run()
    new = asking.ask("something else")
    asking.run()
    assert asking.stats(goes_on).reused > 20 and asking.stats(new).reused < 5
    kept = [bytes(t for t in slot.engine.tokens if t < 128) for slot in asking.answerer._slots]
    assert kept[0].startswith(b"u:first") and kept[1].startswith(b"u:something") and kept[2].startswith(b"u:third")


def test_each_slot_has_policies_of_its_own(asking: Asking) -> None:
    made = []
    for slot in asking.answerer._slots:
        build = slot.backend.policy
        slot.backend.policy = lambda *given, slot=slot, build=build, **more: made.append(slot) or build(*given, **more)
    for _ in range(2):
        for text in ("a", "b", "c"):
            asking.ask(text)
        asking.run()
    assert made == list(asking.answerer._slots)


def test_a_comparison_learns_nothing_and_starts_with_nothing(asking: Asking) -> None:
    made = []
    for slot in asking.answerer._slots:
        build = slot.backend.policy
        slot.backend.policy = lambda *given, build=build, **more: made.append(more["history"]) or build(*given, **more)
    asking.ask("a")
    asking.run()
    for _ in range(2):
        asking.ask("a", is_comparison=True)
        asking.run()
    asking.ask("a")
    asking.run()
    assert made == [True, False, False]


# ---- prompts ---------------------------------------------------------------------------------------------------------


@given(total=st.integers(1, 3000), begin=st.integers(0, 500), size=st.sampled_from([128, 512]))
def test_chunks_are_not_small_and_begin_at_groups(total: int, begin: int, size: int) -> None:
    begin = max(0, min(GROUP * begin, total - MIN_CHUNK)) // GROUP * GROUP
    at = begin
    while at < total:
        end = chunk_end(at, total, size)
        assert at % GROUP == 0 and at < end <= min(total, at + size)
        assert end - at >= min(MIN_CHUNK, total)
        at = end


def test_the_end_of_a_prompt_is_always_computed(make_backend: Make) -> None:
    engine = make_backend().engine
    tokens = list(range(40))
    for n_read, expected in ((40, 28), (30, 39)):
        engine.tokens = list(tokens)
        prefill = Prefill(engine, tokens, n_read)
        prefill.read_chunk(512)
        assert prefill.is_complete and prefill.reused == expected


def test_slots_need_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((None, 4), (10_000, 4), (3_000, 2), (100, 1)):
        monkeypatch.setattr(memory, "free_ram", lambda free=free: free)
        assert affordable_slots(4, 1000) == expected


# ---- the client ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(make_link: Make, make_backend: Make) -> Any:
    links: list[Any] = []

    def start(load: LoadOptions) -> Any:
        links.append(make_link(make_backend(n_slots=3)))
        return links[-1]

    client: Any = EngineClient(LoadOptions(), start)
    client.links = links
    return client


def ask(client: Any, text: str) -> str:
    events = client.generate((Message("user", text),), DENSE)
    return "".join(event.text for event in events if getattr(event, "state", "") == "verified")


def in_threads(n: int, function: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * n

    def run(i: int) -> None:
        try:
            results[i] = function(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_threads_ask_at_once(client: Any) -> None:
    """None of them has opened it."""
    assert in_threads(8, lambda i: ask(client, f"question {i}")) == ["Hello there."] * 8
    assert len(client.links) == 1 and not client.answering
    client.close()


def test_one_is_cancelled_and_one_is_left(client: Any) -> None:
    for _ in client.open():
        pass
    engine = client.links[0].backend.engine
    gate = threading.Event()
    engine.before_chunk = lambda done: gate.wait(10) and None
    cancelled = client.generate((Message("user", "a"),), DENSE)
    left = client.generate((Message("user", "b"),), DENSE)
    timer = threading.Timer(0.1, gate.set)
    timer.start()
    next(cancelled)
    next(left)
    cancelled.cancel()
    left.close()
    events = list(cancelled)
    assert isinstance(events[-1], Done) and not client.answering
    assert ask(client, "c") == "Hello there."
    timer.join()
    client.close()


def test_a_crash_is_told_to_those_being_answered_and_the_others_are_answered_by_the_next_engine(client: Any) -> None:
    for _ in client.open():
        pass
    gate = threading.Event()
    client.links[0].backend.engine.before_chunk = lambda done: gate.wait(10) and None
    client.silence_seconds = 0.01
    taken_up = client.generate((Message("user", "question"),), DENSE)
    assert isinstance(next(event for event in taken_up if not isinstance(event, Silence)), PromptProgress)
    begun = threading.Barrier(4)

    def run(i: int) -> Any:
        if i == 3:
            begun.wait(10)
            return ask(client, "crash")
        events = client.generate((Message("user", f"question {i}"),), DENSE)
        assert isinstance(next(events), Silence), "it waits"
        begun.wait(10)
        return "".join(event.text for event in events if getattr(event, "state", "") == "verified")

    results = in_threads(4, run)
    gate.set()
    assert results[:3] == ["Hello there."] * 3 and isinstance(results[3], EngineLostError)
    with pytest.raises(EngineLostError):
        list(taken_up)
    assert ask(client, "again") == "Hello there." and len(client.links) == 2
    client.close()


def test_a_request_is_put_to_one_more_engine_only(client: Any) -> None:
    with pytest.raises(EngineLostError):
        ask(client, "crash before it is taken up")
    assert len(client.links) == 2
    client.close()


@pytest.mark.parametrize("end", ["close", "kill"])
def test_who_ends_the_engine_ends_the_requests_that_wait(client: Any, end: str) -> None:
    for _ in client.open():
        pass
    gate = threading.Event()
    client.links[0].backend.engine.before_chunk = lambda done: gate.wait(10) and None
    client.silence_seconds = 0.01
    waiting = [client.generate((Message("user", f"question {i}"),), DENSE) for i in range(2)]
    for events in waiting:
        next(events)
    getattr(client, end)()
    gate.set()
    for events in waiting:
        with pytest.raises(EngineLostError):
            list(events)
    assert len(client.links) == 1
    client.close()


def test_samplers_are_closed_however_an_answer_ends(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    done, cancelled, failing = asking.ask("done"), asking.ask("cancelled"), asking.ask("failing")
    reading = asking.ask("x" * 300)
    for _ in range(4):
        asking.answerer.turn()
    asking.answerer.cancellation.cancel(cancelled)
    asking.answerer.cancellation.cancel(reading)
    answers = {answer.id: answer for answer in asking.answerer._answers}

    def fail(*arguments: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(answers[failing].slot.engine, "advance", fail)
    monkeypatch.setattr(asking.backend, "advance_together", fail)
    asking.run()
    assert {type(asking.of(each)[-1]) for each in (done, cancelled, failing, reading)} <= {Done, Failed}
    assert asking.backend.samplers and all(sampler.closed for sampler in asking.backend.samplers)


def test_a_bad_grammar_keeps_the_cache(asking: Asking) -> None:
    good = asking.ask("good")
    asking.run()
    slots = [(list(slot.engine.tokens), slot.previous) for slot in asking.answerer._slots]
    bad = asking.ask("bad", options=ChatOptions(PolicyChoice("dense"), json_schema='{"minimum": 1}'))
    asking.run()
    (failed,) = asking.of(bad)
    assert failed.title == "bad JSON schema" and asking.text(good) == "Hello there."
    assert slots == [(list(slot.engine.tokens), slot.previous) for slot in asking.answerer._slots]
