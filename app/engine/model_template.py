"""The chat template of a model's file, or what takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from specee.app.engine.chat_template import ChatTemplate, as_line
from specee.app.engine.template_guess import Guess, guess
from specee.models import base_model, vocabulary
from specee.models.gguf_header import Header
from specee.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class ModelTemplate:
    """How chats are written for a model. `guess`: what takes the place of a template of its own; `broken`: why its own
    cannot be used; `is_base`: the file says that it is no chat model."""

    template: ChatTemplate
    guess: Guess | None = None
    broken: str | None = None
    is_base: bool = False
    as_text: frozenset[str] = frozenset()
    """Names of tags that are text in the model's vocabulary."""

    @property
    def origin(self) -> str:
        """Where the template comes from."""
        if self.guess is None:
            return "from the file"
        missing = "the file has none" if self.broken is None else f"the file's cannot be used: {self.broken}"
        why = f", as {self.guess.why}" if self.guess.why else ""
        return f"guessed as {self.guess.name}{why} ({missing})"

    @property
    def note(self) -> str | None:
        """What a user should know before the first answer."""
        notes = [] if self.guess is None else [f"chat template {self.origin}"]
        if self.is_base or (self.guess is not None and not self.guess.why):
            known = "this is" if self.is_base else "this may be"
            notes.append(f"{known} a base model, which continues texts rather than answers")
        return "; ".join(notes) or None


def open_model_template(header: Header, special: Mapping[str, str] | None = None) -> ModelTemplate:
    """The template that a model's file has, else the one that its vocabulary suggests.

    `special`: what llama.cpp knows of special tokens, as Vocabulary has it, where the file does not say so.
    """
    read = vocabulary.read(header)
    known = replace(read, special={**read.special, **(special or {})})
    name = str(header.values.get("general.name") or header.path.stem)
    return choose_template(vocabulary.templates(header), known, name, is_base=base_model.is_base(header))


def choose_template(
    sources: Mapping[str, str], known: Vocabulary, model: str = "", *, is_base: bool = False
) -> ModelTemplate:
    """`sources`: the templates of the file by name, "" the nameless one; `model`: its name."""
    source, for_tools = _chosen(sources)
    broken = None
    if source is not None:
        try:
            template = ChatTemplate(source, known.special, for_tools=for_tools)
            return ModelTemplate(template, is_base=is_base, as_text=known.as_text)
        except Exception as error:  # it is code of the model's file, and may fail in any way
            broken = as_line(error)
    found = guess(known.names, model)
    return ModelTemplate(ChatTemplate(found.source, known.special), found, broken, is_base, known.as_text)


def _chosen(sources: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The template for chats, and the one for chats with tools if that is another."""
    for_tools = sources.get("tool_use")
    names = ("", "default", "chat", *(name for name in sources if name not in ("tool_use", "rag")), *sources)
    source = next((sources[name] for name in names if sources.get(name, "").strip()), None)
    return source, None if for_tools == source else for_tools
