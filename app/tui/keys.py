"""The keys of the chat screen, and what the screen says about them."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from specee.app.tui import first_start, welcome

BINDINGS: list[BindingType] = [
    Binding("ctrl+c", "copy_or_quit", "Copy the selection, stop the answer, or quit", priority=True),
    Binding("ctrl+q", "quit", "Quit", priority=True),
    Binding("escape", "stop", "Stop the answer", priority=True),
    Binding("pageup", "page(-1)", "Scroll up", priority=True),
    Binding("pagedown", "page(1)", "Scroll down", priority=True),
    Binding("ctrl+b", "sidebar", "List of chats", priority=True),
    Binding("ctrl+o", "last_chat", "The last chat", priority=True),
    Binding("ctrl+f", "command('/search')", "Search all chats", priority=True),
    Binding("ctrl+r", "command('/retry')", "Answer again", priority=True),
    Binding("ctrl+y", "command('/copy')", "Copy the last answer", priority=True),
    Binding("alt+up", "message(-1)", "Message before", priority=True),
    Binding("alt+down", "message(1)", "Message after", priority=True),
    Binding("ctrl+t", "thoughts", "Show or fold thoughts", priority=True),
    Binding("ctrl+z", "suspend_process", "Suspend; fg comes back", priority=True),
    Binding("ctrl+g", "editor", "Write the prompt in $EDITOR", priority=True),
    Binding("f1", "command('/keys')", "All keys", priority=True),
    Binding("f2", "next_view", "Next view", priority=True),
    Binding("f3", "command('/model')", "Choose a model", priority=True),
    Binding("f4", "command('/settings')", "Settings", priority=True),
    Binding("f8", "command('/persona')", "Personas and saved prompts", priority=True),
    *(
        Binding(key, f"fetch_suggested({i})", f"At a first start: fetch model {i + 1}", show=False, priority=True)
        for i, key in enumerate(first_start.KEYS)
    ),
    *(
        Binding(key.lower(), f"try_question({i})", f"In a first chat: ask question {i + 1}", show=False, priority=True)
        for i, key in enumerate(welcome.KEYS)
    ),
    Binding("ctrl+left", "inspect(-1)", "Previous token in the view", priority=True),
    Binding("ctrl+right", "inspect(1)", "Next token in the view", priority=True),
]
ACTIONS = {
    "/editor": "editor",
    "/resume": "sidebar",
    "/view": "next_view",
    "/quit": "copy_or_quit",
}
"""Commands whose keys do a bit more, or less."""
CHAT_ACTIONS = {
    "stop",
    "page",
    "sidebar",
    "command",
    "editor",
    "next_view",
    "inspect",
    "copy_or_quit",
    "thoughts",
    "message",
    "fetch_suggested",
    "try_question",
    "last_chat",
}
"""Actions that mean nothing while another screen, like the palette, lies above the chat."""

KEY_HELP = {
    "Enter": "send; Ctrl+J begins a new line",
    "Esc": "stop the answer",
    "Up": "in an empty prompt: edit the last question",
    "PgUp, PgDn": "scroll; at the top, earlier turns come",
    "Ctrl+B": "list of chats; Ctrl+F searches in all of them",
    "Ctrl+O": "go on with the last chat, or with the one before this",
    "Alt+1": "in a first chat: ask the question that stands there; so do Alt+2 and Alt+3",
    "Ctrl+R": "answer the last question again",
    "Ctrl+Y": "copy the last answer",
    "Alt+Up": "go to a message: then c copies, e edits, r answers again, b branches, d deletes it, n goes on with an "
    "answer, f folds its code, Left and Right show its branches; Esc comes back",
    "Ctrl+T": "show or fold what the model thought; so does a click on its line",
    "Ctrl+Z": "suspend; the shell's fg comes back. Ctrl+_ undoes a change in the prompt",
    "Ctrl+D": "in an empty prompt: quit",
    "Ctrl+G": "write the prompt in $EDITOR",
    "F1": "all keys, also those of the lists",
    "F2": "the next view",
    "F3": "choose a model, as /model does; what is in the prompt stays",
    "F4": "settings, each with what it does: for this chat, or kept in config.toml",
    "F8": "personas and saved prompts",
    "Ctrl+P": "palette: all commands, and themes",
    "Ctrl+C": "copy what is selected (a double click selects a message, or its code), else stop the answer, else quit",
    "@FILE": "in a question: send this file with it; so does a file that is dropped on the terminal",
    "Tab": "complete a command, or the name of a file",
    "Space, /": "a question that begins with /, not a command",
}

HINTS = (
    "Enter sends · Esc stops · Up edits the last question · Ctrl+C quits · /help lists commands and keys\n"
    "Above the prompt, each token of an answer is a column; the line under it says what height and colours mean. "
    "F2 shows other views."
)
"""What a new user should know."""
