"""The form of a chat for models whose files have no usable template: by the names that their vocabularies have."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """A template. `needs`: names of tokens that its vocabulary must have; `models`: what the model's name must match,
    where names of tokens do not tell; `stops`: how the user's next turn begins, where that is text that a model may
    write without ending its answer."""

    name: str
    source: str
    needs: tuple[str, ...] = ()
    models: re.Pattern[str] | None = None
    stops: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """What suggests it, "" if nothing does."""
        by_name = "its name suggests it" if self.models is not None else ""
        return f"its vocabulary has {self.needs[0]}" if self.needs else by_name


def _turns(before: str, after: str, answer: str, *, names: str = "{{ m.role }}", head: str = "") -> str:
    """Turns that all look alike: `before`, with the role's name, the content, `after`; `answer` begins the next one."""
    turn = before.replace("ROLE", names)
    return (
        f"{head}{{% for m in messages %}}{turn}{{{{ m.content }}}}{after}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


_N = "{{ '\\n' }}"
_MODEL = "{{ 'model' if m.role == 'assistant' else m.role }}"
_INST = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = ns.system ~ m.content ~ '\\n\\n' %}"
    "{% elif m.role == 'user' %}OPEN{{ ns.system ~ m.content }} [/INST]{% set ns.system = '' %}"
    "{% else %}{{ ' ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}"
)
_SPEAKERS = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content ~ SEP }}"
    "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' ~ m.content ~ END }}"
    "{% else %}{{ 'USER: ' ~ m.content ~ SEP }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

PLAIN = Guess(
    "plain text (User: ... Assistant: ...)",
    _SPEAKERS.replace("SEP", "'\\n\\n'")
    .replace("END", "'\\n\\n'")
    .replace("USER", "User")
    .replace("ASSISTANT", "Assistant"),
    stops=("\n\nUser:", "\nUser:"),
)

GUESSES = (
    Guess(
        "gpt-oss",
        _turns("<|start|>ROLE<|message|>", "<|end|>", "<|start|>assistant"),
        ("<|start|>", "<|message|>", "<|channel|>"),
    ),
    Guess(
        "Llama 3",
        _turns(
            f"<|start_header_id|>ROLE<|end_header_id|>{_N}{_N}",
            "<|eot_id|>",
            f"<|start_header_id|>assistant<|end_header_id|>{_N}{_N}",
            head="{{ bos_token }}",
        ),
        ("<|start_header_id|>", "<|eot_id|>"),
    ),
    Guess(
        "Llama 4",
        _turns(
            f"<|header_start|>ROLE<|header_end|>{_N}{_N}",
            "<|eot|>",
            f"<|header_start|>assistant<|header_end|>{_N}{_N}",
            head="{{ bos_token }}",
        ),
        ("<|header_start|>", "<|eot|>"),
    ),
    Guess(
        "Gemma",
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + _turns(f"<start_of_turn>ROLE{_N}", f"<end_of_turn>{_N}", f"<start_of_turn>model{_N}", names=_MODEL),
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    Guess(
        "Gemma 4",
        _turns(f"<|turn>ROLE{_N}", f"<turn|>{_N}", f"<|turn>model{_N}", names=_MODEL, head="{{ bos_token }}"),
        ("<|turn>", "<turn|>"),
    ),
    Guess(
        "Kimi",
        _turns("<|im_ROLE|>{{ m.role }}<|im_middle|>", "<|im_end|>", "<|im_assistant|>assistant<|im_middle|>"),
        ("<|im_middle|>", "<|im_user|>", "<|im_end|>"),
    ),
    Guess(
        "Phi-4",
        _turns("<|im_start|>ROLE<|im_sep|>", "<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        ("<|im_sep|>", "<|im_start|>", "<|im_end|>"),
    ),
    Guess(
        "ChatML",
        _turns(f"<|im_start|>ROLE{_N}", f"<|im_end|>{_N}", f"<|im_start|>assistant{_N}"),
        ("<|im_start|>", "<|im_end|>"),
    ),
    Guess(
        "Granite",
        _turns(
            "<|start_of_role|>ROLE<|end_of_role|>",
            f"<|end_of_text|>{_N}",
            "<|start_of_role|>assistant<|end_of_role|>",
        ),
        ("<|start_of_role|>", "<|end_of_role|>"),
    ),
    Guess(
        "Command R",
        _turns(
            "<|START_OF_TURN_TOKEN|>ROLE",
            "<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            names="{{ '<|CHATBOT_TOKEN|>' if m.role == 'assistant' else '<|' ~ m.role | upper ~ '_TOKEN|>' }}",
            head="{{ bos_token }}",
        ),
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    ),
    Guess(
        "DeepSeek",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<\uff5cAssistant\uff5c>' ~ m.content ~ '<\uff5cend▁of▁sentence\uff5c>' }}{% elif m.role == 'user' %}"
        "{{ '<\uff5cUser\uff5c>' ~ m.content }}{% else %}{{ m.content ~ '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<\uff5cAssistant\uff5c>{% endif %}",
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    ),
    Guess(
        "EXAONE",
        _turns("[|ROLE|]", f"[|endofturn|]{_N}", "[|assistant|]"),
        ("[|assistant|]", "[|endofturn|]"),
    ),
    Guess(
        "OpenChat",
        _turns(
            "ROLE: ",
            "<|end_of_turn|>",
            "GPT4 Correct Assistant:",
            names="GPT4 Correct {{ m.role | title }}",
            head="{{ bos_token }}",
        ),
        ("<|end_of_turn|>",),
    ),
    Guess(
        "Phi-3",
        _turns(f"<|ROLE|>{_N}", f"<|end|>{_N}", f"<|assistant|>{_N}"),
        ("<|assistant|>", "<|user|>", "<|end|>"),
    ),
    Guess(
        "GLM",
        _turns(f"<|ROLE|>{_N}", "", f"<|assistant|>{_N}", head="[gMASK]<sop>"),
        ("<|assistant|>", "<|user|>", "[gMASK]", "<sop>"),
    ),
    Guess(
        "Mistral",
        _INST.replace("OPEN", "[INST] "),
        ("[INST]", "[/INST]"),
    ),
    Guess(
        "Zephyr",
        _turns(f"<|ROLE|>{_N}", f"{{{{ eos_token }}}}{_N}", f"<|assistant|>{_N}"),
        ("<|assistant|>", "<|user|>"),
    ),
    Guess(
        "Llama 2",
        _INST.replace("OPEN", "{{ bos_token if not loop.first and loop.previtem.role == 'assistant' }}[INST] ").replace(
            "m.content ~ '\\n\\n' %}", "'<<SYS>>\\n' ~ m.content ~ '\\n<</SYS>>\\n\\n' %}"
        ),
        models=re.compile(r"llama-?2.*chat|codellama.*instruct", re.IGNORECASE),
    ),
    Guess(
        "Mistral",
        _INST.replace("OPEN", "[INST] "),
        models=re.compile(r"mi[sx]tral.*instruct", re.IGNORECASE),
    ),
    Guess(
        "Vicuna",
        _SPEAKERS.replace("SEP", "' '").replace("END", "eos_token"),
        models=re.compile(r"vicuna|wizardlm", re.IGNORECASE),
        stops=(" USER:", "\nUSER:"),
    ),
    Guess(
        "Alpaca",
        "{% for m in messages %}{{ {'user': '### Instruction:\\n', 'assistant': '### Response:\\n'}.get(m.role, '') "
        "~ m.content ~ '\\n\\n' }}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
        models=re.compile(r"alpaca", re.IGNORECASE),
        stops=("\n\n### Instruction:", "\n### Instruction:"),
    ),
)
"""The first one that fits is taken."""


def guess(names: Collection[str], model: str = "") -> Guess:
    """The form that fits best. `names`: of control tokens; `model`: the model's name."""
    for each in GUESSES:
        if each.models.search(model) if each.models is not None else all(name in names for name in each.needs):
            return each
    return PLAIN
