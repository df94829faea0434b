"""A chat as the tokens that the model reads: the one place where a prompt is made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from specee.app.engine.backend import Backend
from specee.app.engine.chat_template import no_text
from specee.app.engine.control_tokens import Names, Part, after, text_of
from specee.app.engine.prompt_length import LONGEST_TOKEN, prompt_too_long
from specee.app.engine.protocol import Message
from specee.app.engine.thinking import Thinking, Variables
from specee.app.engine.thought_splitter import Place
from specee.app.errors import AppError
from specee.app.settings import Think


@dataclass(frozen=True)
class Prompt:
    """A text and its tokens. Generated tokens may split the text in other places than the tokenizer would."""

    text: str
    tokens: list[int]
    place: Place = "beginning"
    """Of an answer, what comes next."""
    goes_on: bool = False
    """Whether it goes on with text that was generated before."""
    n_thought: int = 0
    """Tokens of a thought that goes on, or that is before an answer that does."""
    asked: str = ""
    """The text before the answer."""
    said: tuple[str, str] = ("", "")
    """What the answer has after that: its thought and itself, as they are shown and kept."""
    has_hidden: bool = False
    """Whether the answer has tokens that its text does not show: control tokens, as a bias may want them."""

    def with_answer(
        self, text: str, tokens: list[int], said: tuple[str, str] = ("", ""), *, has_hidden: bool = False
    ) -> Prompt:
        """The prompt and what was generated for it, which was shown as `said`."""
        thought, answer = self.said
        more, hidden = (thought + said[0], answer + said[1]), self.has_hidden or has_hidden
        return replace(self, text=self.text + text, tokens=self.tokens + tokens, said=more, has_hidden=hidden)


def make_prompt(
    backend: Backend,
    messages: Sequence[Message],
    *,
    continue_answer: bool = False,
    tools: str | None = None,
    previous: Sequence[Prompt] = (),
    think: Think = "auto",
) -> Prompt:
    """The chat in the model's chat template. Raises AppError when the template refuses it or gives nothing.

    `continue_answer`: the last message is the beginning of an answer, and the prompt ends where it ends.
    `previous`: prompts with their answers. The tokens of the longest one that the chat goes on from are kept: they are
    in the KV cache. Names of control tokens in the messages are text. Thoughts of earlier answers are left out.
    """
    thinking = backend.thinking
    *before, begun = messages if continue_answer else (*messages, Message("assistant", ""))
    if begun.thought and think == "off":
        think = "on"
    chat = thinking.prepared(before)
    names, asked = _without_names(backend, chat, begun, tools, thinking.given(think))
    opened = thinking.opens(asked, think, names.hide(chat[-1]).content if chat else "")
    said, begun = (begun.thought or "", begun.content), names.hide(begun)
    parts = names.parts(asked + (_begun(thinking, begun, opened=opened) if continue_answer else ""))
    text, asked = text_of(parts), text_of(names.parts(asked))
    most = LONGEST_TOKEN * backend.engine.n_ctx
    if len(text) > most:
        window = f"the context window of {backend.engine.n_ctx} tokens"
        why = f"it has {len(text)} characters, {window} cannot hold them"
        given = thinking.given(think)
        raise prompt_too_long(backend, messages, tools, given, why, len(text) // LONGEST_TOKEN)
    # spaces around a thought are not kept, so that the text of its own tokens may be another one
    own = next((p for p in previous if continue_answer and (p.asked, p.said) == (asked, said)), None)
    tokens: list[int] = [] if own is None else own.tokens
    text = text if own is None else own.text
    for prompt in sorted(previous, key=lambda prompt: len(prompt.text), reverse=True):
        tokens = tokens or _following(backend, prompt, parts, continue_answer=continue_answer)
    tokens = tokens or _from_the_beginning(backend, parts)
    if not tokens:
        raise no_text()
    if not continue_answer:
        return Prompt(text, tokens, "thought" if opened else "beginning", asked=asked)
    n_thought = len(_tokens(backend, names.parts(begun.thought), bos=False)) if begun.thought else 0
    place: Place = "answer" if begun.content else "thought"
    return Prompt(text, tokens, place, goes_on=True, n_thought=n_thought, asked=asked, said=said)


def _without_names(
    backend: Backend, chat: Sequence[Message], begun: Message, tools: str | None, variables: Variables
) -> tuple[Names, str]:
    """What the template makes of the chat, and the names of control tokens that are hidden in it.

    Templates that leave out a part of a text (as `/think` is left out), join texts or write them in small letters can
    make a name of what was none: then such a text is written with its signs hidden, too.
    """

    def written(names: Names) -> str:
        return _formatted(backend, [names.hide(m) for m in chat], names.hide_in_tools(tools), variables)

    names = Names(backend.control_tokens, [*chat, begun], tools)
    asked = written(names)
    if names.in_parts(chat):
        strict = Names(backend.control_tokens, [*chat, begun], tools, ends=True)
        with suppress(AppError):
            strictly = written(strict)
            if names.count(asked) > names.count(strictly):
                return strict, strictly
    return names, asked


def _formatted(backend: Backend, chat: Sequence[Message], tools: str | None, variables: Variables) -> str:
    """In the template. Some refuse a thought beside what else a message has: it is left out then."""
    try:
        return backend.format(chat, tools, variables)
    except AppError:
        if all(message.thought is None for message in chat):
            raise
        return backend.format([replace(message, thought=None) for message in chat], tools, variables)


def _begun(thinking: Thinking, begun: Message, *, opened: bool) -> str:
    """The beginning of an answer, as it stands behind a prompt."""
    form = thinking.form
    if form is None:
        return begun.content
    if not begun.thought:
        return (form.closing if opened else form.plain_opening) + begun.content
    thought = ("" if opened else form.opening) + begun.thought
    return thought + form.closing + begun.content if begun.content else thought


def _from_the_beginning(backend: Backend, parts: Sequence[Part]) -> list[int]:
    """BOS comes first where the vocabulary wants one, and once only: many templates write it themselves."""
    bos, parts = backend.bos_text, list(parts)
    first, is_name = parts[0] if parts else ("", False)
    written = first.lstrip()
    if not bos or is_name or not written.startswith(bos):
        return _tokens(backend, parts, bos=True)
    while written.startswith(bos + bos):
        written = written.removeprefix(bos)
    parts[0] = (written, False)
    return _tokens(backend, parts, bos=False)


def _following(backend: Backend, previous: Prompt, parts: Sequence[Part], *, continue_answer: bool) -> list[int]:
    """The tokens of `previous` and of the text after it; [] when the text does not go on from there."""
    text = text_of(parts)
    if not text.startswith(previous.text):
        return []
    if text == previous.text:  # the last answer itself is continued; else it had no text, but may have had tokens
        return previous.tokens if continue_answer else []
    if previous.has_hidden:  # who asks shows the text of an answer, which others may have with other tokens
        return []
    rest = _tokens(backend, after(parts, len(previous.text)), bos=False)
    # elsewhere than at the end of an answer, the tokenizer might have joined what stands before and after the split
    return previous.tokens + rest if rest and backend.engine.is_stop(rest[0]) else []


def _tokens(backend: Backend, parts: Sequence[Part], *, bos: bool) -> list[int]:
    tokens: list[int] = []
    follows_text, control = False, tuple(backend.control_tokens)
    for i, (text, is_name) in enumerate(parts):
        tokens += backend.tokenize(text, bos=bos and i == 0, special=not is_name, is_rest=follows_text)
        follows_text = is_name or not text.endswith(control)
    return tokens
