"""A benchmark's report for people, on the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from specee.app.cli import tables
from specee.app.options import DEFAULT_KV_TYPE

Figures = dict[str, Any]
STOCK = "stock llama.cpp"


@dataclass(frozen=True)
class Table:
    """The first column has names, the others figures."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def columns(self) -> list[tables.Column]:
        return [tables.Column(title, right=index > 0) for index, title in enumerate(self.titles)]


def text(report: Figures) -> str:
    """As text."""
    return _joined(report, tables.table, list_mark="")


def markdown(report: Figures) -> str:
    """As GitHub's Markdown, for a README."""
    return _joined(report, tables.markdown, list_mark="- ")


def _joined(report: Figures, draw: Callable[..., str], list_mark: str) -> str:
    found = [_policies(report), *([_categories(report)] if _category_names(report) else [])]
    head, legend = ("\n".join(list_mark + line for line in lines) for lines in (_head(report), _legend(report)))
    return "\n\n".join([head, *(draw(table.columns, table.rows) for table in found), legend])


# ---- what was measured ---------------------------------------------------------------------------------------------


def _head(report: Figures) -> list[str]:
    machine = report["machine"]
    kept = "" if report["kv_type"] == DEFAULT_KV_TYPE else f"; keys and values in {report['kv_type']}"
    repeats = f", each {report['repeats']} times" if report["repeats"] > 1 else ""
    lines = [
        f"{report['model']} ({report['arch']}, {report['n_layers']} layers, sha256 {report['model_sha256'][:12]}); "
        f"prompts: {report['prompts']}{repeats}; at most {report['max_tokens']} tokens; "
        f"temperature {report['temperature']:g}, repeat penalty {report['repeat_penalty']:g}{kept}",
        f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['instruction_sets'])}), "
        f"{report['threads']} threads, kernels: {machine['kernels']}; specee-chat {report['version']}; "
        f"{report['date'][:10]}",
    ]
    if not report["complete"]:
        lines.insert(0, "INCOMPLETE: interrupted before the last prompt")
    return lines


def _legend(report: Figures) -> list[str]:
    lines = [
        "tokens/s: decoding only, from the first token to the last.",
        "speed-up: over dense on the same prompt; geometric mean (least to greatest prompt).",
        "until loop: the same, up to where dense's answer first repeats 12 of its tokens.",
        "same text: answers that are dense's, token for token.",
    ]
    if report["stock"] is not None:
        version = report["llama_cpp_python"]
        lines.append(f"{STOCK}: llama-cpp-python {version} as it comes, in a process of its own, in turns with ours.")
    if report["temperature"] > 0:
        lines.append(
            "Above temperature 0 all policies have the same seed. Those that verify with random numbers of their own "
            "keep dense's distribution, not its texts."
        )
        if report["stock"] is not None:
            lines.append(f"Random numbers of {STOCK} are others: only its rates can be compared.")
    return lines


# ---- a row for each policy -----------------------------------------------------------------------------------------


def _policies(report: Figures) -> Table:
    named = {_name(label, figures): figures for label, figures in report["policies"].items()}
    stock = {} if report["stock"] is None else {STOCK: report["stock"]}
    columns = _columns(report)
    rows = [[name, *(show(figures) for _, show in columns)] for name, figures in {**named, **stock}.items()]
    return Table(["policy", *(title for title, _ in columns)], rows)


def _columns(report: Figures) -> list[tuple[str, Callable[[Figures], str]]]:
    """Those in which the policies can differ."""
    found = report["policies"].values()
    shown: list[tuple[str, Callable[[Figures], str]]] = [
        ("tokens/s", _figure("tokens_per_second", ".1f")),
        ("speed-up", _speedup),
        ("until loop", lambda figures: _cell(figures["until_loop"]["speedup"], ".2f")),
    ]
    if report["stock"] is not None:
        shown.append(("over stock", _figure("vs_stock", ".2f")))
    if any(figures["acceptance"] is not None for figures in found):
        shown += [("tokens/step", _figure("tokens_per_step", ".2f")), ("accepted", _figure("acceptance", ".0%"))]
    if any(figures["mean_exit_layer"] != report["n_layers"] for figures in found):
        shown.append((f"exit layer of {report['n_layers']}", _figure("mean_exit_layer", ".2f")))
    if any(figures["identical_texts"] != report["prompts"] for figures in found):
        if report["temperature"] == 0:
            shown.append(("agreement", _figure("agreement", ".1%")))
        shown += [
            ("ppl ratio", _figure("ppl_ratio", ".3f")),
            ("dup. words", _figure("duplicate_words", ".2%")),
        ]
    prompts = report["prompts"]
    shown.append(("same text", lambda figures: _of(figures["identical_texts"], prompts)))
    return shown


def _figure(key: str, form: str) -> Callable[[Figures], str]:
    return lambda figures: _cell(figures.get(key), form)


def _speedup(figures: Figures) -> str:
    mean = _cell(figures["speedup"], ".2f")
    if figures["speedup_min"] == figures["speedup_max"]:
        return mean
    return f"{mean} ({figures['speedup_min']:.2f}-{figures['speedup_max']:.2f})"


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _of(part: int | None, whole: int) -> str:
    return "-" if part is None else f"{part} of {whole}"


def _name(label: str, figures: Figures) -> str:
    return label if figures["policy"] == label else f"{label} = {figures['policy']}"


# ---- a row for each category ---------------------------------------------------------------------------------------


def _category_names(report: Figures) -> list[str]:
    """None where all prompts are of one kind."""
    names = list(next(iter(report["policies"].values()))["by_category"])
    return names if len(names) > 1 else []


def _categories(report: Figures) -> Table:
    """Speed-ups over dense."""
    compared = {_name(label, figures): figures for label, figures in report["policies"].items() if label != "dense"}
    if report["stock"] is not None:
        compared[STOCK] = report["stock"]
    rows = []
    for category in _category_names(report):
        cells = [figures["by_category"][category] for figures in compared.values()]
        prompts = report["policies"]["dense"]["by_category"][category]["prompts"]
        rows.append([category, str(prompts), *(_cell(cell["speedup"], ".2f") for cell in cells)])
    return Table(["speed-up by category", "prompts", *compared], rows)
