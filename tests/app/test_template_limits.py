"""Templates are code of the model's file: what they take of time and memory is bounded."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from specee.app.engine import chat_template, template_limits
from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.jinja_template import JinjaTemplate
from specee.app.engine.protocol import Message
from specee.app.engine.template_limits import TooMuchError
from specee.app.errors import USAGE, AppError

ASK = (Message("user", "Hi"),)
SAYS_ALL = "{% for m in messages %}{{ m.role }}:{{ m.content }}|{% endfor %}"
LOOP = "{% for a in range(99999) %}"


@pytest.mark.parametrize(
    "endless", ["{{ 2**99999999999 }}", "{{ 'a' * 10**10 }}", f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}"]
)
def test_a_template_cannot_compute_for_ever(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.2)
    with pytest.raises(TooMuchError, match="it computes"):
        ChatTemplate(endless + "{{ messages[0].content }}", {})
    assert ChatTemplate("{{ messages[0].content * 3 }}{{ 6 * 7 }} {{ 2**10 }}", {})(ASK) == "HiHiHi42 1024"


def test_all_trials_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of some forty renderings may stay just below the limit of one."""
    monkeypatch.setattr(chat_template, "MAX_TRIED_SECONDS", 0.0)
    n_rendered, render = [], JinjaTemplate.render
    monkeypatch.setattr(JinjaTemplate, "render", lambda *a, **k: n_rendered.append(1) or render(*a, **k))
    with pytest.raises((TooMuchError, LookupError)):
        ChatTemplate(SAYS_ALL, {})
    assert len(n_rendered) == 1


TEN = "{% set ns = namespace(x='0123456789', l=[1]) %}"
MANY = "{% for i in range(60) %}"
END = "{% endfor %}"


def peak_memory(forget: bool = False) -> int:
    """Bytes that this process had resident at most, from the last time on that earlier peaks were forgotten."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is Linux's")
@pytest.mark.parametrize(
    "greedy",
    [
        TEN + MANY + "{% set ns.x = ns.x + ns.x %}" + END,
        TEN + MANY + "{% set ns.x = ns.x ~ ns.x %}" + END,
        TEN + MANY + "{% set ns.x = ns.x ~ ns.x ~ ns.x ~ ns.x %}" + END,
        TEN + MANY + "{% set ns.x = ns.x * 4 %}" + END,
        TEN + MANY + "{% set ns.x = '%s%s' % (ns.x, ns.x) %}" + END,
        TEN + MANY + "{% set ns.x = '%s%s' | format(ns.x, ns.x) %}" + END,
        TEN + MANY + "{% set ns.x = '{0}{0}'.format(ns.x) %}" + END,
        TEN + MANY + "{% set ns.x = [ns.x, ns.x] | join %}" + END,
        TEN + MANY + "{% set ns.x = ''.join([ns.x, ns.x]) %}" + END,
        TEN + MANY + "{% set ns.x = ns.x.join(['', '', '']) %}" + END,
        TEN + MANY + "{% set ns.x = ns.x.replace('0', ns.x) %}" + END,
        TEN + MANY + "{% set ns.x = ns.x | replace('0', ns.x) %}" + END,
        TEN + MANY + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}" + END,
        TEN + MANY + "{% macro m() %}{{ ns.x }}{{ ns.x }}{% endmacro %}{% set ns.x = m() %}" + END,
        TEN + MANY + "{% set ns.l = ns.l + ns.l %}" + END,
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ ns.l }}",
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ ns.l | string }}",
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ ns.l | tojson }}",
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ ns.l ~ '' }}",
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ '%s' % ns.l }}",
        TEN + MANY + "{% set ns.l = [ns.l, ns.l] %}" + END + "{{ '{}'.format(ns.l) }}",
        TEN + MANY + "{% set ns.l = {'a': ns.l, 'b': ns.l} %}" + END + "{{ ns.l | pprint }}",
        TEN + "{% set x = 'a' * 9999999 %}{% for i in range(9999) %}{{ x }}" + END,
        TEN + "{% for i in range(9999) %}{% set ns.l = ns.l + ['a' * 9999999] %}" + END,
        "{{ 'a' | center(10**10) }}",
        "{{ 'a'.center(10**10) }}",
        "{{ 'a'.rjust(10**10) }}",
        "{{ 'a'.zfill(10**10) }}",
        "{{ ('\t' * 9999).expandtabs(10**9) }}",
        "{{ ('a\n' * 9999) | indent(10**9) }}",
        "{{ ('a b ' * 9999) | wordwrap(1, wrapstring='x' * 99999) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**10) }}",
        "{{ [1, 2] | tojson(indent=10**9) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ lipsum(10**9) }}",
    ],
)
def test_a_template_cannot_take_all_memory(greedy: str) -> None:
    """For every chat, and for some only."""
    before = peak_memory(forget=True)
    with pytest.raises(Exception) as refused:
        ChatTemplate(greedy + "{{ messages[0].content }}", {})
    assert not isinstance(refused.value, MemoryError)
    del refused  # its frames hold what was made
    gc.collect()
    some = SAYS_ALL + "{% if messages | length > 9 %}" + greedy + "{% endif %}"
    render = ChatTemplate(some, {})
    with pytest.raises(AppError, match="refuses this chat") as told:
        render((*ASK, Message("assistant", "Ho")) * 5)
    assert told.value.exit_code == USAGE and told.value.line.isprintable()
    assert (peak_memory() - before) >> 20 < 1024, "MiB"


def test_what_templates_do_is_within_their_limits() -> None:
    usual = (
        "{{ messages[0].content | trim | upper ~ '!' ~ 5 }}{{ '%d of %s' % (1700000000, 'x') }} {{ none }}"
        "{{ '{:>4}'.format(7) }}{{ [1, 'b'] | tojson(indent=1) | indent(2) }}{{ undefined_name }}{{ [1] }}"
        "{{ messages | map(attribute='role') | join(', ') }}{{ 1700000000 | default(2000000000) }}"
    )
    text = ChatTemplate(usual, {})(ASK)
    assert text == 'HI!51700000000 of x None   7[\n     1,\n     "b"\n  ]'.replace("     ", "   ") + "[1]user1700000000"
    long = "word " * 5_000_000  # too long for the window, which is said elsewhere
    assert len(ChatTemplate(SAYS_ALL, {})((Message("user", long),))) > len(long)
