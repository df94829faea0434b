"""What of a chat the model is sent, and how much of its context window that fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specee.app.chat.history.records import Turn
from specee.app.engine.protocol import Message

NEARLY_FULL = 0.8  # of the context window: time to say so
KEPT_SHARE = 0.5  # of the text, when the oldest turns are left out
SUMMARY_TOKENS = 256
SUMMARY_THOUGHT_TOKENS = 256  # of a model that cannot be told not to think
SUMMARIZE = "Summarize our conversation so far in at most five sentences. Keep names, numbers and decisions."
SUMMARY_HEAD = "Summary of the conversation so far:"


class ContextWindow:
    """Knows how many tokens a chat fills: counted at its last answer, estimated after turns were left out."""

    def __init__(self) -> None:
        self._kept_share = 1.0  # of the counted tokens, since turns were left out

    def tokens(self, branch: Sequence[Turn]) -> int:
        """Tokens that the chat fills; 0 before its first answer."""
        turns = answered(branch)
        stats = turns[-1].stats if turns else None
        if not stats:
            return 0
        thoughts = stats.get("thought_tokens", 0) + stats.get("prompt_thought_tokens", 0)  # no later prompt has them
        filled: int = stats["prompt_tokens"] + stats["tokens"] - thoughts
        return round(max(0, filled) * self._kept_share)

    def leave_out(self, turns: Sequence[Turn], first: int, summary: str) -> None:
        """Of `turns`, only those from `first` on and the summary are sent from now on."""
        self._kept_share *= (_characters(turns[first:]) + len(summary)) / max(1, _characters(turns))

    def reset(self) -> None:
        """Another chat, or another branch: its last answer's count holds."""
        self._kept_share = 1.0


def answered(branch: Sequence[Turn]) -> Sequence[Turn]:
    """The branch without a question at its end that has no answer, or an empty one."""
    end = len(branch)
    while end and (branch[end - 1].role == "user" or not branch[end - 1].content):
        end -= 1
    return branch[:end]


def sent_turns(branch: Sequence[Turn]) -> Sequence[Turn]:
    """The turns that the model is sent: from the last cut on."""
    cuts = [index for index, turn in enumerate(branch) if turn.cut is not None]
    return branch[cuts[-1] :] if cuts else branch


def first_kept(turns: Sequence[Turn]) -> int:
    """The index of the oldest question that stays when about half of the text shall go; 0 when nothing can go."""
    questions = [index for index, turn in enumerate(turns) if turn.role == "user" and index]
    if not questions:
        return 0
    half = KEPT_SHARE * _characters(turns)
    return next((index for index in questions if _characters(turns[index:]) <= half), questions[-1])


def as_messages(system: str | None, turns: Sequence[Turn], *, goes_on: bool = False) -> tuple[Message, ...]:
    """Turns after a system message: its text, and the summary of what was left out. Thoughts are left out, but for that
    of a last answer that `goes_on`."""
    summary = turns[0].cut if turns and turns[0].cut else ""
    parts = [system or "", f"{SUMMARY_HEAD}\n{summary}" if summary else ""]
    text = "\n\n".join(part for part in parts if part)
    head = (Message("system", text),) if text else ()
    messages = [Message(turn.role, turn.sent) for turn in turns]
    if goes_on and turns[-1].thought:
        messages[-1] = replace(messages[-1], thought=turns[-1].thought)
    return (*head, *messages)


def _characters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.sent) for turn in turns)
