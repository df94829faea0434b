"""The settings of a chat: those of `/set` and of config.toml, what each does, what it is now, and how it is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from specee.app import config_file, settings
from specee.app import options as opts
from specee.app.chat import parameters
from specee.app.errors import USAGE, AppError
from specee.models import resolve

if TYPE_CHECKING:
    from specee.app.chat.commands import FrontEnd

ON, OFF = "on", "off"
Flag = Literal["on", "off"]
Effect = Literal["answer", "load", "start"]
EFFECTS: Mapping[Effect, str] = {
    "answer": "from the next answer on",
    "load": "the model is loaded again",
    "start": "from the next start on, if it is kept",
}
"""When a setting takes effect."""
_OF_THE_PROCESS = {
    "ctx": "n_ctx",
    "kv_type": "kv_type",
    "threads": "threads",
    "gpu_layers": "gpu_layers",
    "no_chats": "chats",
}
"""Fields of LoadOptions, by the settings' names."""
_NOT_OPTIONS = {
    "repeat_last_n": "How many of the last tokens the repeat penalty is for.",
    "presence_penalty": "Above 0: a token that is in the answer already becomes less likely; below 0: more likely.",
    "frequency_penalty": "The same, once more for each time that it is there.",
}
"""Parameters of `/set` that the command line does not have."""

_DEFAULTS = {
    "seed": parameters.SEEDS_AT_RANDOM,
    "drafter": parameters.OF_THE_MODEL,
    "model": resolve.EMBEDDED,
    "think_tokens": "none",
    "plain": OFF,
}
"""Words for defaults, where those of --help are a sentence."""


@dataclass(frozen=True)
class ChatSetting:
    """One setting. `kind`: its type in settings.py; `default`: a word for its default, `help`: what it does;
    `in_config`: whether config.toml can have it."""

    name: str
    heading: str
    help: str
    kind: Any
    default: str
    effect: Effect
    in_config: bool = True

    @property
    def key(self) -> str:
        """Its name in config.toml."""
        return self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[str, ...]:
        """What it can be, if that is a list."""
        return settings.choices(self.kind)

    def read(self, text: str) -> Any:
        """The value of what is typed; None is the default. Raises AppError."""
        text = text.strip()
        if text.lower() in ("", parameters.DEFAULT, self.default.lower()):
            return None
        value = settings.check(self.kind, self.name, text)
        return value == ON if self.kind is Flag else value

    def words(self, value: object) -> str:
        """A value as it is shown and typed."""
        if isinstance(value, bool):
            return ON if value else OFF
        if isinstance(value, float):
            return f"{value:g}"
        return self.default if value is None else str(value)

    def is_default(self, value: object) -> bool:
        """Whether a value is what holds where nobody says anything."""
        return value is False or self.words(value) == self.default


def all_settings() -> list[ChatSetting]:
    """In the order of the form, those that are changed most often first."""
    from specee.app.cli.program import program
    from specee.app.cli.shared_options import ANSWER, CHATS, CHOOSING, FILES, MODEL, SCRIPTS, SETTINGS, SPEED

    headings = (CHOOSING, ANSWER, MODEL, SPEED, CHATS, FILES, SCRIPTS)
    found = [_of_option(option) for option in program.params if option.name in SETTINGS]
    found += [
        ChatSetting(
            name, CHOOSING, words, settings.SAMPLING[name], f"{getattr(opts.Sampling(), name):g}", "answer", False
        )
        for name, words in _NOT_OPTIONS.items()
    ]
    return sorted(found, key=lambda one: headings.index(one.heading))


def _of_option(option: Any) -> ChatSetting:
    name = str(option.name)
    kind = Flag if option.is_flag else settings.PolicyName if name == "policy" else option.type.kind
    default = option.otherwise or OFF if option.is_flag else option.otherwise
    default = _DEFAULTS.get(name, default)
    return ChatSetting(name, option.heading, option.help, kind, default or "none", _effect(name))


def _effect(name: str) -> Effect:
    if name in _OF_THE_PROCESS or name in ("model", "drafter"):
        return "load"
    known = {"policy", "system", *settings.SAMPLING, *opts.OF_ANSWER, *opts.PARAMETERS_OF_POLICIES}
    return "answer" if name in known else "start"


def value(front: FrontEnd, setting: ChatSetting, kept: Mapping[str, Any]) -> Any:
    """What it is now; None where that is the default. `kept`: what config.toml says."""
    name, session, options = setting.name, front.session, front.options
    if name in settings.SAMPLING:
        return getattr(options.sampling, name)
    if name in opts.OF_ANSWER:
        return getattr(options, name)
    if name == "policy":
        return options.policy.name
    if name in opts.PARAMETERS_OF_POLICIES:
        return getattr(options.policy, name)
    if name in ("model", "drafter", "system"):
        return getattr(session, name)
    if name == "no_chats":
        return not session.load_options.chats
    if name in _OF_THE_PROCESS:
        return getattr(session.load_options, _OF_THE_PROCESS[name])
    return front.session.given.get(name, kept_value(setting, kept))


def kept_value(setting: ChatSetting, kept: Mapping[str, Any]) -> Any:
    """What config.toml says; None where it says nothing."""
    return kept.get(setting.key, kept.get(setting.name))


def origin(front: FrontEnd, setting: ChatSetting, kept: Mapping[str, Any]) -> str:
    """Where the present value comes from."""
    now = value(front, setting, kept)
    if setting.name == "system" and now is not None:
        for name, text in front.texts.by_name[config_file.PERSONAS].items():
            if text == now:
                return f"persona {name}"
    said = {"command line": front.session.given.get(setting.name), "config.toml": kept_value(setting, kept)}
    said = {where: one for where, one in said.items() if one is not None}
    for where, one in said.items():
        if setting.words(_as_used(setting, one)) == setting.words(now):
            return where
    return "default" if setting.is_default(now) and not said else "this chat"


def _as_used(setting: ChatSetting, written: Any) -> Any:
    """A value as it is once it is read."""
    if setting.name in ("model", "drafter"):
        return resolve.stable_name(written)
    return opts.PolicyChoice.parse(written).name if setting.name == "policy" else written


def changed_options(options: opts.ChatOptions, setting: ChatSetting, new: Any) -> opts.ChatOptions | None:
    """How the next answer is asked for with it; None where it is not about answers. Raises AppError for what does not
    go with the rest."""
    name = setting.name
    if name in settings.SAMPLING:
        new = getattr(opts.Sampling(), name) if new is None else new
        return replace(options, sampling=replace(options.sampling, **{name: new}))
    if name in opts.OF_ANSWER:
        return replace(options, **{name: getattr(opts.ChatOptions(), name) if new is None else new})
    if name == "policy":
        policy = opts.PolicyChoice(new or "auto")
        given = {one: getattr(options.policy, one) for one in opts.PARAMETERS[policy.name]}
        return replace(options, policy=replace(policy, **given))
    if name in opts.PARAMETERS_OF_POLICIES:
        if new == settings.CALIBRATED:
            new = None
        new = bool(new) if name == "early_rejection" else new
        return replace(options, policy=replace(options.policy, **{name: new}))
    return None


def apply(front: FrontEnd, setting: ChatSetting, new: Any) -> None:
    """The chat goes on with it. Raises AppError."""
    name, session = setting.name, front.session
    if (options := changed_options(front.options, setting, new)) is not None:
        if session.info is not None:
            session.info.check(options.policy)
        front.options = options
    elif name == "system":
        session.set_system(new)
    elif name == "model":
        if new is None:
            raise AppError("no model given", "/model lists those that are known", USAGE)
        front.switch_model(new)
    elif name == "drafter":
        front.commands.set_drafter(new)
    elif name in _OF_THE_PROCESS:
        front.require_idle()
        field = _OF_THE_PROCESS[name]
        new = getattr(opts.LoadOptions(), field) if new is None else not new if name == "no_chats" else new
        if new != getattr(session.load_options, field):
            session.change_load(**{field: new})
            front.load_changed()


def keep(front: FrontEnd, setting: ChatSetting, new: Any) -> str:
    """Writes it into config.toml, for new chats: a default takes the line out. The chat goes on with it, too. Returns
    what to say. Raises AppError."""
    if not setting.in_config:
        raise AppError("not kept", "config.toml has no place for it; it can only be set for this chat", USAGE)
    path = front.session.folders.config
    kept = config_file.read(path)
    is_default = new is None or setting.words(new) == setting.default
    changes = {setting.name if setting.name in kept else setting.key: None if is_default else new}
    _check_kept({key: one for key, one in {**kept, **changes}.items() if one is not None})
    if setting.effect != "start" and setting.words(new) != setting.words(value(front, setting, kept)):
        apply(front, setting, new)
    config_file.change(path, changes)
    if is_default:
        return f"{setting.name}: config.toml leaves it at its default, {setting.default}"
    return f"{setting.name} {setting.words(new)} is kept in {path}, for new chats"


def _check_kept(kept: Mapping[str, Any]) -> None:
    """Raises AppError where what config.toml would say does not go together, so that no chat would start with it."""
    from specee.app.cli.shared_options import policy_choice

    values = {key.replace("-", "_"): given for key, given in kept.items()}
    persona = values.get("persona")
    if persona is not None and persona not in values.get(config_file.PERSONAS, {}):
        raise AppError("unknown persona", f"{settings.shown(persona)} is not under [personas] in config.toml", USAGE)
    policy_choice({name: values.get(name) for name in opts.PARAMETERS_OF_POLICIES}, values.get("policy") or "auto")
