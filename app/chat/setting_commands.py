"""The slash commands for settings, personas and saved prompts: how a chat answers, and what config.toml keeps."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from specee.app import config_file, settings
from specee.app.chat import parameters, setting_list
from specee.app.config_file import PERSONAS, PROMPTS
from specee.app.errors import USAGE, AppError, as_app_error
from specee.app.formatting import label, visible
from specee.app.options import NO_DRAFTER
from specee.app.settings import SAMPLING, KVType, Text, check
from specee.models.errors import ModelError
from specee.models.resolve import NotHere

if TYPE_CHECKING:
    from specee.app.chat.commands import FrontEnd

KEEP = "--keep"
SAVE, RENAME, DELETE = "save", "rename", "delete"
_NAME = re.compile(r'\s*(?:"([^"]*)"|([^\s"]\S*))\s*')


class SettingCommands:
    """Commands of one front end: see ChatCommands."""

    _front: FrontEnd

    def arguments(self) -> dict[str, Callable[[], Mapping[str, str]]]:
        """What may follow a command, each with its help; a longer command stands before one that it begins with."""
        front = self._front
        no_drafter = {NO_DRAFTER: "no model drafts", parameters.OF_THE_MODEL: "the model's own"}
        return {
            "/set drafter": lambda: {**no_drafter, **front.known_models},
            "/settings": _names_and_choices,
            "/set": lambda: {name: words for name, words in _names().items() if name in parameters.NAMES},
            "/persona": lambda: self._texts(PERSONAS),
            "/prompt": lambda: self._texts(PROMPTS),
        }

    def _texts(self, table: str) -> dict[str, str]:
        known = sorted(self._front.texts.by_name[table])
        verbs = {SAVE: "", **{f"{verb} {name}": "" for verb in (RENAME, DELETE) for name in map(_quoted, known)}}
        return {**{name: _line(self._front.texts.by_name[table][name]) for name in known}, **verbs}

    # ---- settings --------------------------------------------------------------------------------------------------

    def do_set(self, argument: str) -> None:
        """NAME VALUE: a parameter, like /set temperature 0.8 or /set drafter qwen2.5-0.5b; /set alone lists them"""
        sampling = self._front.options.sampling
        name, _, value = argument.partition(" ")
        name, value = name.replace("-", "_"), value.strip()
        if name == parameters.DRAFTER:
            self.set_drafter(parameters.read_drafter(value))
        elif name == parameters.KV_TYPE:
            self._set_kv_type(parameters.read_kv_type(value))
        elif name in SAMPLING:
            number = parameters.read(name, value)
            self._front.options = replace(self._front.options, sampling=replace(sampling, **{name: number}))
            self._front.show_notice(f"{name} {parameters.value_words(name, number)} from the next answer on")
        elif name in parameters.THINKING:
            chosen = parameters.read_thinking(name, value)
            self._front.options = replace(self._front.options, **{name: chosen})
            self._front.show_notice(f"{name} {parameters.value_words(name, chosen)} from the next answer on")
        else:
            known = parameters.listed(self._front.options, self._front.session.drafter, self._front.session.kv_type)
            if name:
                raise parameters.no_such(name, tuple(self._front.commands.help_lines()), known)
            self._front.show_notice(f"parameters: {known}")

    def _set_kv_type(self, kv_type: KVType) -> None:
        self._front.require_idle()
        if kv_type != self._front.session.kv_type:
            self._front.session.set_kv_type(kv_type)
            self._front.load_changed()

    def set_drafter(self, name: str | None) -> None:
        """Another model drafts; None: the one that belongs to the model. Raises AppError."""
        self._front.require_idle()
        if name == self._front.session.drafter:
            return
        try:
            self._front.session.use_drafter(name)
        except NotHere as error:
            raise AppError(error.title, f"/pull {name} downloads it") from None
        except ModelError as error:
            raise as_app_error(error) from error
        self._front.load_changed()

    def do_settings(self, argument: str) -> None:
        """NAME: what it does; NAME VALUE: for this chat; with --keep behind: for every new one, too"""
        front, keeps = self._front, argument == KEEP or argument.endswith(f" {KEEP}")
        name, *rest = argument.removesuffix(KEEP).split(None, 1) or [""]
        setting, kept = _setting(name), config_file.read(front.session.folders.config)
        if keeps:
            new = setting.read(rest[0]) if rest else setting_list.value(front, setting, kept)
            setting_list.changed_options(front.options, setting, new)
            front.show_notice(setting_list.keep(front, setting, new))
        elif rest:
            self._use(setting, setting.read(rest[0]))
        else:
            now = _line(setting.words(setting_list.value(front, setting, kept)))
            allowed = ", ".join(setting.choices) or settings.allowed(setting.kind)
            where, effect = setting_list.origin(front, setting, kept), setting_list.EFFECTS[setting.effect]
            words = f"{setting.help} It can be {allowed}; default: {setting.default}. Changed: {effect}."
            front.show_notice(f"{setting.name} is {now} ({where}). {words}")

    def _use(self, setting: setting_list.ChatSetting, new: object) -> None:
        if setting.effect == "start":
            why = f"{setting.name} is read when specee-chat starts: {KEEP} behind the value keeps it in config.toml"
            raise AppError("not for this chat", why, USAGE)
        words, front = _line(setting.words(new)), self._front
        if setting.words(setting_list.value(front, setting, {})) == setting.words(new):
            front.show_notice(f"{setting.name} is {words} already")
            return
        setting_list.apply(front, setting, new)
        effect = setting_list.EFFECTS[setting.effect]
        front.show_notice(f"{setting.name} {words}{'' if setting.effect == 'answer' else ';'} {effect}")

    # ---- texts -----------------------------------------------------------------------------------------------------

    def do_system(self, argument: str) -> None:
        """TEXT: the system message of this chat"""
        self._front.session.set_system(check(Text, "system message", argument) or None)
        self._front.show_notice(f"system message: {argument}" if argument else "no system message")

    def do_persona(self, argument: str) -> None:
        """NAME: its system message; save NAME [TEXT] (or the present one), rename NAME NEW, delete NAME"""
        if not self._changed(PERSONAS, argument):
            self.do_system(self._front.texts.find(PERSONAS, argument))

    def do_prompt(self, argument: str) -> None:
        """NAME: a saved prompt; save NAME [TEXT] (or the last question), rename NAME NEW, delete NAME"""
        if not self._changed(PROMPTS, argument):
            self._front.write_prompt(self._front.texts.find(PROMPTS, argument))

    def _changed(self, table: str, argument: str) -> bool:
        """Does what is to be done with a saved text; False where the argument is only a name."""
        texts = self._front.texts
        texts.read()
        verb, _, rest = argument.partition(" ")
        if argument in texts.by_name[table] or verb not in (SAVE, RENAME, DELETE):
            return False
        name, behind = _name(rest)
        if verb == SAVE:
            texts.add(table, name, behind or self._present(table))
            said = f"{name} is kept; /{table[:-1]} {name} uses it"
        elif verb == RENAME:
            new, more = _name(behind)
            if not new or more:
                raise AppError(
                    "not renamed", f'/{table[:-1]} rename takes two names; "quotes" hold one of words', USAGE
                )
            texts.rename(table, name, new)
            said = f"{name} is called {new} now"
        else:
            name = rest.strip() if behind else name  # a name of several words needs no quotes here
            text = texts.find(table, name)
            texts.remove(table, name)
            said = f"{name} is deleted; it was: {_line(text)}"
        self._front.show_notice(said)
        return True

    def _present(self, table: str) -> str:
        """What is saved where no text is given."""
        session = self._front.session
        if table == PERSONAS:
            text, why = session.system or "", "this chat has no system message; /system TEXT gives it one"
        else:
            text = next((turn.content for turn in reversed(session.branch) if turn.role == "user"), "")
            why = "there is no question yet; write the text behind the name"
        if not text:
            raise AppError("nothing to save", why, USAGE)
        return text


def _names() -> dict[str, str]:
    return {one.name: one.help.partition(". ")[0] for one in setting_list.all_settings()}


def _names_and_choices() -> dict[str, str]:
    choices = {f"{one.name} {choice}": "" for one in setting_list.all_settings() for choice in one.choices}
    return {**_names(), **choices}


def _setting(name: str) -> setting_list.ChatSetting:
    """Raises AppError."""
    known = {one.name: one for one in setting_list.all_settings()}
    name = name.replace("-", "_")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        raise AppError("no such setting", f"{settings.shown(name)}; {hint}", USAGE)
    return known[name]


def _name(text: str) -> tuple[str, str]:
    """The name that a text begins with, a word or some in quotes, and what stands behind it."""
    found = _NAME.match(text)
    if found is None:
        return "", ""
    return (found[1] if found[1] is not None else found[2]).strip(), text[found.end() :].strip()


def _line(text: str) -> str:
    return label(visible(text))


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
