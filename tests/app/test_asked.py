"""An answer with which another engine goes on: what is told of it twice, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specee.app.engine.asked import Asked
from specee.app.engine.protocol import ChatEvent, Done, Generate, ModelInfo, PromptProgress, Started, Stats, TokenEvents
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice

STATS = Stats(5, 0, 3, 0.1, 1.0, 300.0, 30.0, 30, "dense", "fake", "stop", 1)


def asked_for(**options: Any) -> Asked:
    return Asked(Generate(1, (), ChatOptions(**options)))


def token(index: int, state: str = "verified", layer: int = 30, **more: Any) -> ChatEvent:
    return ChatEvent(index, chr(97 + index), 100 + index, layer, state, 0.5, **more)


def tell(asked: Asked, *messages: Any) -> list[Any]:
    return [event for message in messages for event in asked.passed_on(message)]


def begun(asked: Asked, *events: ChatEvent) -> None:
    tell(asked, PromptProgress(0, 5), Started("exact", "", 5, 0, 77), TokenEvents(events))


def test_another_engine_gets_the_tokens_that_stand_and_the_seed() -> None:
    asked = asked_for(max_tokens=9)
    begun(asked, token(0, layer=20), token(1), token(2, "provisional"), token(3, "provisional"), token(2))
    taken_back = list(asked.go_on())
    assert [(event.index, event.state, event.text) for event in taken_back] == [(3, "rolled_back", "")]
    assert asked.request.given == (100, 101, 102) and asked.request.options.sampling.seed == 77
    told = tell(asked, PromptProgress(0, 8), Started("exact", "", 5, 0, 77), TokenEvents((token(3),)), Done(STATS))
    assert [type(one) for one in told] == [ChatEvent, Done], "that it began is told once"
    assert told[0].index == 3 and told[0].t > 0.5, "its time goes on"
    assert told[1].stats.mean_exit_layer == pytest.approx((20 + 30 * 3) / 4) and told[1].stats.ttft_s == 0.5
    list(asked.go_on())
    assert asked.request.given == (100, 101, 102, 103), "and once more"


def test_an_answer_that_was_whole_ends_again() -> None:
    """The engine was lost before it said so: its last token is computed again, and not told."""
    asked = asked_for(max_tokens=2)
    begun(asked, token(0), token(1))
    assert not list(asked.go_on()) and asked.request.given == (100,)
    assert [type(one) for one in tell(asked, TokenEvents((token(1),)), Done(STATS))] == [Done]


@pytest.mark.parametrize("options", [{"grammar": "root ::= [a-z]"}, {"json_schema": "{}"}, {"think_tokens": 5}])
def test_an_answer_in_several_runs_does_not_go_on(options: dict[str, Any]) -> None:
    asked = asked_for(**options)
    assert asked.can_go_on, "nothing has come yet"
    begun(asked, token(0))
    assert not asked.can_go_on


def test_what_somebody_stopped_does_not_go_on() -> None:
    asked = asked_for()
    asked.cancel()
    assert not asked.can_go_on


def test_a_policy_that_needs_the_lost_device_becomes_auto() -> None:
    asked = asked_for(policy=PolicyChoice("pipelined"))
    info = ModelInfo("m", "m.gguf", "llama", 30, 512, 1, n_stages=2)
    asked.fit(info)
    assert asked.request.options.policy.name == "pipelined"
    asked.fit(replace(info, n_stages=1))
    assert asked.request.options.policy.name == "auto"


@pytest.mark.parametrize(
    ("given", "lost", "left"),
    [
        ({"rpc": "a:1, b:2,c:3", "tensor_split": "1,2,3"}, "b:2", "a:1,c:3"),
        ({"rpc": "a:1"}, "a:1", None),
        ({"rpc": "a:1,b:2", "device": "RPC1"}, "a:1", None),
        ({"rpc": "a:1,b:2"}, None, None),
        ({"rpc": "a:1,b:2"}, "c:3", None),
    ],
)
def test_what_is_left_without_a_worker(given: dict[str, str], lost: str | None, left: str | None) -> None:
    load = LoadOptions(n_ctx=512, gpu_layers=7, cpu_fallback=True, **given).without(lost)  # type: ignore[arg-type]
    assert (load.rpc, load.tensor_split, load.has_devices, load.has_lost) == (left, None, bool(left), bool(left))
    assert load.gpu_layers == (7 if left else None) and load.n_ctx == 512
