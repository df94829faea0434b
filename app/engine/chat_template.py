"""A chat as the prompt that the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specee.app.engine.protocol import Message
from specee.app.errors import AppError

Formatter = Callable[[Sequence[Message]], str]

# For models that bring no template: the most common form.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_formatter(template: str | None, *, bos: str, eos: str) -> Formatter:
    """The model's own template in the bindings' sandbox. Raises AppError when the template cannot be compiled."""
    import jinja2
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter = Jinja2ChatFormatter(template=template or CHATML, bos_token=bos, eos_token=eos)
    except jinja2.TemplateError as error:
        raise AppError("bad chat template", f"the model's template cannot be read: {error}") from error

    def render(messages: Sequence[Message]) -> str:
        try:
            chat = [{"role": m.role, "content": m.content} for m in messages]
            return str(formatter(messages=chat).prompt)
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            raise AppError("chat template", f"the model's template refuses this chat: {error}") from error

    return render
