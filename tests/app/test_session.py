"""Session and runtime over a fake backend."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from specee.app.chat.stats_line import stats_line
from specee.app.engine.client import Silence
from specee.app.engine.protocol import ChatEvent, Done, Generate, Progress, PromptProgress, Started, Stats
from specee.app.engine.thinking import Thinking
from specee.app.engine.thought_splitter import ThoughtForm
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import ChatOptions, PolicyChoice, Sampling

Make = Callable[..., Any]
EXACT = ChatOptions(PolicyChoice("exact"))
DENSE = ChatOptions(PolicyChoice("dense"))


def answer_text(events: list[Any]) -> str:
    return "".join(e.text for e in events if isinstance(e, ChatEvent) and e.state == "verified")


def stats(events: list[Any]) -> Stats:
    assert isinstance(events[-1], Done)
    found: Stats = events[-1].stats
    return found


def test_an_answer_has_its_events_in_order(make_session: Make) -> None:
    session = make_session()
    events = list(session.send("Hi", DENSE))
    kinds = [type(e) for e in events]
    assert kinds[0] is Progress and kinds[-1] is Done
    assert kinds.index(PromptProgress) < kinds.index(Started) < kinds.index(ChatEvent)
    assert answer_text(events) == "Hello there."
    assert stats(events).stop_reason == "stop"
    assert stats(events).tokens == len("Hello there.")
    assert stats(events).mean_exit_layer == 30
    assert [m.role for m in session.messages] == ["user", "assistant"]
    session.close()


def test_rolled_back_tokens_never_reach_the_text(make_session: Make) -> None:
    events = list(make_session().send("Hi", EXACT))
    states = [e.state for e in events if isinstance(e, ChatEvent)]
    assert "rolled_back" in states and "provisional" in states
    assert answer_text(events) == "Hello there."
    assert 24 < stats(events).mean_exit_layer < 30


def test_a_second_question_reuses_the_cache(make_session: Make) -> None:
    session = make_session(system="Be kind.")
    first = list(session.send("One", EXACT))
    second = list(session.send("Two", EXACT))
    engine = session.links[0].backend.engine
    asked = session.links[0].sent[-1]
    assert isinstance(asked, Generate)
    assert [m.role for m in asked.messages] == ["system", "user", "assistant", "user"]
    # everything up to the end of the first answer was in the cache
    assert stats(second).reused >= stats(first).prompt_tokens + stats(first).tokens - 1
    assert engine.prefills[1] == stats(second).prompt_tokens - stats(second).reused
    assert len(session.links) == 1


def test_a_new_conversation_resets_the_schedule(make_session: Make) -> None:
    session = make_session()
    for text in ("a", "b"):
        list(session.send(text, EXACT))
    policy = session.links[0].backend.policies["exact"]
    assert policy.resets == 1
    session.new()
    list(session.send("c", EXACT))
    assert policy.resets == 2
    assert session.messages[0].content == "c"


def test_length_and_window_end_an_answer(make_session: Make, make_backend: Make) -> None:
    events = list(make_session().send("Hi", ChatOptions(PolicyChoice("dense"), max_tokens=3)))
    assert answer_text(events) == "Hel" and stats(events).stop_reason == "length"
    events = list(make_session(make_backend(n_ctx=10)).send("Hi", DENSE))
    assert stats(events).stop_reason == "window"
    assert 0 < len(answer_text(events)) < len("Hello there.")


def test_a_prompt_beyond_the_window_is_refused(make_session: Make, make_backend: Make) -> None:
    session = make_session(make_backend(n_ctx=20))
    with pytest.raises(AppError) as caught:
        list(session.send("x" * 50, DENSE))
    assert caught.value.exit_code == PROMPT_TOO_LONG
    assert session.messages == ()
    assert answer_text(list(session.send("ok", DENSE)))  # the engine is still there
    assert len(session.links) == 1


def test_cut_characters_are_whole_again(make_session: Make, make_backend: Make) -> None:
    events = list(make_session(make_backend("né 🙂 ok".encode())).send("Hi", EXACT))
    assert answer_text(events) == "né 🙂 ok"
    texts = [e.text for e in events if isinstance(e, ChatEvent) and e.state == "verified"]
    assert not any("\ufffd" in text for text in texts)


@pytest.mark.parametrize("policy", ["dense", "exact"])
@pytest.mark.parametrize("length", range(1, 9))
def test_an_answer_cut_within_a_character_goes_on_before_it(
    make_session: Make, make_backend: Make, policy: str, length: int
) -> None:
    whole = "né 🙂 ok"
    session = make_session(make_backend(whole.encode()))
    options = ChatOptions(PolicyChoice(policy), max_tokens=length)
    begun = answer_text(list(session.send("Hi", options)))
    assert begun == whole.encode()[:length].decode("utf-8", "ignore") == session.branch[-1].content
    list(session.continue_answer(replace(options, max_tokens=64)))
    assert session.branch[-1].content == whole
    assert len(session.branch[-1].tokens) >= len(whole)


def test_a_character_that_the_model_does_not_finish_is_replaced(make_session: Make, make_backend: Make) -> None:
    assert answer_text(list(make_session(make_backend(b"a\xf0\x9f")).send("Hi", DENSE))) == "a\ufffd"


def test_cancel_between_tokens(make_session: Make, make_backend: Make, scripted: Make) -> None:
    backend = make_backend(b"word " * 50)
    reached, go_on = threading.Event(), threading.Event()

    def delay(index: int) -> None:
        if index == 5:
            reached.set()
            go_on.wait(10)

    policy = backend.policies["exact"] = scripted(delay)
    session = make_session(backend)
    events = []
    for event in session.send("Hi", EXACT):
        events.append(event)
        if isinstance(event, ChatEvent) and not go_on.is_set():
            reached.wait(10)
            session.cancel()
            go_on.set()
    assert stats(events).stop_reason == "cancelled"
    assert policy.closed == 1
    assert answer_text(events).startswith("word ")
    assert session.messages[1].content == answer_text(events)


def test_cancel_while_the_prompt_is_read(make_session: Make, make_backend: Make) -> None:
    backend = make_backend()
    session = make_session(backend)
    backend.engine.before_chunk = lambda done: session.cancel() if done >= 32 else None
    events = list(session.send("x" * 200, DENSE))
    assert stats(events).stop_reason == "cancelled" and answer_text(events) == ""
    assert session.messages == ()
    backend.engine.before_chunk = lambda done: None
    assert answer_text(list(session.send("again", DENSE))) == "Hello there."


def test_leaving_in_the_middle_stops_the_engine(make_session: Make) -> None:
    session = make_session()
    events = session.send("Hi", EXACT)
    while not isinstance(next(events), ChatEvent):
        pass
    events.close()
    assert not session.answering
    assert answer_text(list(session.send("Hi", EXACT))) == "Hello there."


def test_a_crash_is_an_error_and_the_next_message_restarts(make_session: Make) -> None:
    session = make_session()
    list(session.send("first", DENSE))
    with pytest.raises(AppError, match="crashed"):
        list(session.send("crash", DENSE))
    assert [m.content for m in session.messages] == ["first", "Hello there."]
    events = list(session.send("second", DENSE))
    assert answer_text(events) == "Hello there." and len(session.links) == 2
    assert len(session.links[1].sent[-1].messages) == 3


def test_a_missing_calibration_is_an_error(make_session: Make, make_backend: Make) -> None:
    session = make_session(make_backend(calibrated=False))
    with pytest.raises(AppError, match="calibrat"):
        list(session.send("Hi", EXACT))
    events = list(session.send("Hi", ChatOptions()))
    assert stats(events).policy == "chain" and "drafting" in stats(events).policy_reason


def test_figures_in_one_line(make_session: Make) -> None:
    line = stats_line(stats(list(make_session().send("Hi", ChatOptions(PolicyChoice("dense"), max_tokens=3)))))
    assert line.startswith("3 tokens at ") and "30.0 of 30 layers per token" in line
    assert line.endswith("policy dense: chosen by the user; cut off by --max-tokens") and "\n" not in line


# ---- the tree, and what is kept --------------------------------------------------------------------------------------


def contents(session: Any) -> list[str]:
    return [turn.content for turn in session.branch]


def test_another_answer_and_another_question_are_branches(make_session: Make) -> None:
    session = make_session()
    list(session.send("One", DENSE))
    list(session.send("Two", DENSE))
    list(session.answer_again(DENSE))
    assert (session.branch[-1].place, session.branch[-1].siblings) == (2, 2)
    assert session.links[0].sent[-1].messages == session.links[0].sent[-2].messages
    list(session.edit(session.branch[0].id, "Uno", DENSE))
    assert contents(session) == ["Uno", "Hello there."]
    first = session.store.siblings(session.branch[0].id)[0]
    session.switch_branch(first)
    assert contents(session) == ["One", "Hello there.", "Two", "Hello there."]
    with pytest.raises(AppError, match="no such question"):
        list(session.edit(999, "x", DENSE))


def test_an_answer_continues_where_it_was_cut(make_session: Make) -> None:
    session = make_session()
    list(session.send("Hi", ChatOptions(PolicyChoice("dense"), max_tokens=4)))
    assert session.messages[-1].content == "Hell"
    events = list(session.continue_answer(DENSE))
    assert session.messages[-1].content == "Hello there." and len(session.branch) == 2
    assert stats(events).reused >= stats(events).prompt_tokens - 1  # its own tokens are still there
    turn = session.branch[-1]
    assert len(turn.tokens) == len("Hello there.") and turn.state == "complete"


def test_it_continues_after_the_program_was_left_in_the_middle(make_session: Make) -> None:
    session = make_session()
    events = session.send("Hi", EXACT)
    for event in events:
        if isinstance(event, ChatEvent) and event.index == 4:
            break
    events.close()
    assert session.branch[-1].state == "stopped"
    begun = session.branch[-1].content
    other = make_session(store=session.store)
    other.resume(session.chat.id)
    list(other.continue_answer(EXACT))
    assert other.branch[-1].content == "Hello there." != begun
    assert other.links[0].sent[-1].continue_answer


def test_a_crash_keeps_the_question_and_it_can_be_answered_again(make_session: Make) -> None:
    session = make_session()
    list(session.send("first", DENSE))
    with pytest.raises(AppError, match="crashed"):
        list(session.send("crash", DENSE))
    assert contents(session) == ["first", "Hello there.", "crash", ""]
    assert session.branch[-1].state == "interrupted"
    list(session.send("second", DENSE))  # the unanswered question stays as a branch
    assert contents(session) == ["first", "Hello there.", "second", "Hello there."]
    assert (session.branch[2].place, session.branch[2].siblings) == (2, 2)


def test_what_is_refused_leaves_nothing(make_session: Make, make_backend: Make) -> None:
    session = make_session(make_backend(n_ctx=40))
    with pytest.raises(AppError):
        list(session.send("x" * 50, DENSE))
    assert session.store.chats() == [] and session.chat is None
    list(session.send("ok", DENSE))
    with pytest.raises(AppError):
        list(session.send("x" * 50, DENSE))
    assert contents(session) == ["ok", "Hello there."] and session.branch[-1].state == "complete"
    with pytest.raises(AppError, match="calibrat"):
        list(make_session(make_backend(calibrated=False)).send("Hi", EXACT))


def test_room_is_made_and_marked(make_session: Make, make_backend: Make) -> None:
    session = make_session(make_backend(n_ctx=120))
    for text in ("One", "Two", "Three"):
        list(session.send(text, DENSE))
    used = session.context_tokens
    assert used == session.branch[-1].stats["prompt_tokens"] + session.branch[-1].stats["tokens"]
    with pytest.raises(AppError):
        list(session.send("x" * 60, DENSE))
    assert session.make_room() == 4
    assert [turn.cut for turn in session.branch] == [None, None, None, None, "", None]
    assert [m.content for m in session.messages] == ["Three", "Hello there."] and 0 < session.context_tokens < used
    events = list(session.send("x" * 60, DENSE))
    assert session.context_tokens == stats(events).prompt_tokens + stats(events).tokens, "counted anew"
    with pytest.raises(AppError, match="no room"):
        make_session().make_room()


def test_a_summary_takes_the_place_of_old_turns(make_session: Make) -> None:
    session = make_session(system="Be kind.")
    for text in ("One", "Two"):
        list(session.send(text, DENSE))
    session.make_room(summarize=True)
    list(session.send("Three", DENSE))
    asked = session.links[0].sent[-1].messages
    assert asked[0].role == "system" and asked[0].content.startswith("Be kind.")
    assert asked[0].content.endswith("Hello there.")  # the model's summary
    assert [m.content for m in asked[1:]] == ["Two", "Hello there.", "Three"]


def test_a_chat_keeps_how_it_was_asked(make_session: Make) -> None:
    from specee.app.options import Recalled, recall, remember

    session = make_session(system="Be kind.")
    options = ChatOptions(PolicyChoice.parse("specee:margin@0.3"), Sampling(0.1, seed=4, logit_bias=((5, -1.0),)), 77)
    assert recall(json.loads(json.dumps(remember(options)))) == Recalled(options)
    assert recall({"policy": "specee:settle@0.3"}).options.policy == PolicyChoice(
        "specee", 0.3, kv="complete"
    )  # as once stored
    list(session.send("Hi", DENSE))
    other = make_session(store=session.store)
    assert other.resume(session.chat.id).options == DENSE
    assert other.system == "Be kind."
    other.set_system("Be brief.")
    assert session.store.chat(session.chat.id).system == "Be brief."


def test_silence_is_reported_and_a_hanging_engine_can_be_ended(make_session: Make, make_backend: Make) -> None:
    backend = make_backend()
    hang = threading.Event()
    backend.engine.before_chunk = lambda done: hang.wait(10) and None
    session = make_session(backend)
    session._client.silence_seconds = 0.05
    silences = []
    with pytest.raises(AppError, match="crashed"):
        for event in session.send("Hi", DENSE):
            if isinstance(event, Silence):
                silences.append(event.seconds)
                session.kill()
    hang.set()
    assert silences and session.branch[-1].state == "interrupted"
    assert answer_text(list(session.send("again", DENSE))) == "Hello there."


TAGS = ThoughtForm("<think>", "</think>", "<think>\n", "\n</think>\n\n")


def thinking_session(make_session: Make, make_backend: Make, script: bytes, **given: Any) -> Any:
    backend = make_backend(script, **given)
    backend.thinking = Thinking(TAGS, "always")
    backend.info = replace(backend.info, thinks="always")
    return make_session(backend)


def test_thoughts_are_no_part_of_later_prompts(make_session: Make, make_backend: Make) -> None:
    session = thinking_session(make_session, make_backend, b"<think>\nOne\n</think>\n\nTwo")
    list(session.send("Hi", DENSE))
    turn = session.branch[-1]
    assert (turn.thought, turn.content, turn.state) == ("One", "Two", "complete")
    events = list(session.send("Ho", DENSE))
    (engine,) = session.links[0].backend.engine.slots
    assert bytes(t for t in engine.prompts[-1] if t < 256) == b"u:Hia:Twou:Hoa:"
    assert stats(events).thought_tokens == len(b"<think>\nOne\n</think>")
    assert session.context_tokens == stats(events).prompt_tokens + len(b"\n\nTwo")
    assert [m.content for m in session.messages] == ["Hi", "Two", "Ho", "Two"]
    assert session.chat.title == "Hi"


def test_an_answer_that_was_cut_in_its_thought_goes_on(make_session: Make, make_backend: Make) -> None:
    session = thinking_session(make_session, make_backend, b"<think>\nOne, two\n</think>\n\nThree")
    cut = stats(list(session.send("Hi", replace(DENSE, max_tokens=12))))
    assert cut.thought_cut and session.branch[-1].thought == "One," and session.branch[-1].content == ""
    list(session.continue_answer(DENSE))
    turn = session.branch[-1]
    assert (turn.thought, turn.content, turn.state) == ("One, two", "Three", "complete")
    assert sum(token.characters for token in turn.tokens) == len("One, twoThree")
    list(session.answer_again(DENSE))
    again = session.branch[-1]
    assert (again.thought, again.content, again.siblings) == ("One, two", "Three", 2)
    session.switch_branch(turn.id)
    assert session.branch[-1].id == turn.id


def test_an_answer_goes_on_behind_its_thought(make_session: Make, make_backend: Make) -> None:
    session = thinking_session(make_session, make_backend, b"<think>\nOne\n</think>\n\nTwo, three")
    list(session.send("Hi", replace(DENSE, max_tokens=len(b"<think>\nOne\n</think>\n\nTwo,"))))
    list(session.continue_answer(DENSE))
    turn = session.branch[-1]
    assert (turn.thought, turn.content) == ("One", "Two, three")


def test_a_question_whose_answer_was_only_a_thought_is_left_out(make_session: Make, make_backend: Make) -> None:
    session = thinking_session(make_session, make_backend, b"<think>\nOne, two\n</think>\n\nThree")
    list(session.send("Hi", replace(DENSE, max_tokens=12)))
    list(session.send("Ho", DENSE))
    assert [turn.content for turn in session.branch] == ["Ho", "Three"] and session.branch[0].siblings == 2


def test_a_summary_has_no_thoughts(make_session: Make, make_backend: Make) -> None:
    session = thinking_session(make_session, make_backend, b"<think>\nOne\n</think>\n\nTwo", n_ctx=2000)
    for text in ("Hi", "Ho"):
        list(session.send(text, DENSE))
    session.make_room(summarize=True)
    assert session.branch[2].cut == "Two"
    asked = [sent for sent in session.links[0].sent if isinstance(sent, Generate)][-1]
    assert asked.options.think == "off" and asked.options.max_tokens > 256
