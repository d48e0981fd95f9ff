"""What the command line says of a comparison: its scores, its verdict, and what to do about failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from selfsight.comparison.verdict import sentence
from selfsight.reporting import shifts
from selfsight.results import FLOOR, Results, Segmentation, Shift
from selfsight.runs import counted
from selfsight.terminal import Terminal, skipped

_STYLE = {"replace": "bold green", "keep": "bold blue", "undecided": "bold yellow"}
_SHOWN = ("top1_k20", "top1", "balanced_accuracy")


def compare_summary(terminal: Terminal, results: Results, out: Path) -> None:
    """Scores, verdict and where the report is."""
    if results.scores:
        terminal.console.print(_scores(results))
    for pair in results.comparisons:
        if pair.a == f"{pair.b}?weights=init" and pair.condition == shifts.CLEAN:
            change = f"{pair.difference:+.1f} points ({pair.low:+.1f} to {pair.high:+.1f})"
            terminal.say(f"{pair.b} against its own untrained copy, {pair.task} {pair.metric}: {change}")
    if results.segmentation is not None:
        terminal.console.print(_looks(results.segmentation))
        for each in results.segmentation.differences:
            if each.a == f"{each.b}?weights=init" and each.method_b == "heads":
                change = f"{each.difference:+.1f} points ({each.low:+.1f} to {each.high:+.1f})"
                terminal.say(f"{each.b} against its own untrained copy, best head {each.metric}: {change}")
    if results.shift is not None and results.shift.effects:
        terminal.console.print(_effects(results, results.shift))
    if results.shift is not None:
        for told in shifts.since_sentences(results.shift, shifts.Names(files=True)):
            terminal.say(f"since {results.shift.before}: {told.encoder} {told.text}")
    for told in shifts.findings(results, shifts.Names(files=True)):
        terminal.say(f"{told.encoder}: {told.text}")
    bad = skipped(out / "bad_images.jsonl") if results.data.bad_images else ""
    if results.verdict is not None:
        terminal.console.print(
            sentence(results.verdict, results.data.n_test), style=_STYLE[results.verdict.decision], markup=False
        )
    elif results.labelling is not None:
        terminal.say(f"no labels, so no verdict: label {results.labelling.count} images. {results.labelling.reason}")
        terminal.say("label these first: " + ", ".join(results.labelling.picks[:10]) + " ... (all in results.json)")
    terminal.say(f"report: {out / 'report.html'}{bad}")


def refine_summary(terminal: Terminal, made: Mapping[str, Any], before: Path) -> None:
    """What failed and what is done about it, and the commands that come next."""
    changes = {(each.condition, each.factor, tuple(each.span)): each.change for each in made["answered"]}
    if made["failures"]:
        table = Table(title=f"where {made['encoder']} fails for certain", title_justify="left")
        for column in ("pictures", "right", "points from the others", "answer"):
            table.add_column(column, overflow="fold")
        for each in made["failures"]:
            right = f"{each.value:.1f} % of {each.n}"
            gap = f"{each.gap:+.1f} ({each.low:+.1f} to {each.high:+.1f})"
            place = shifts.place_name(each.condition, each.factor, each.span, shifts.Names(files=True))
            table.add_row(escape(place), right, gap, escape(changes.get((each.condition, each.factor, tuple(each.span)), "-")))
        terminal.console.print(table)
    if made["out"] is None:
        terminal.say(f"{made['encoder']} fails nowhere for certain that a spec can answer: nothing is written")
        return
    out = Path(made["out"])
    folder = out.with_suffix("")
    drawn = "".join(f" --{name} {made[name]}" for name in ("count", "seed") if made[name] is not None)
    encoders = " ".join(f'--encoder "{encoder}"' for encoder in made["encoders"])
    terminal.say(f"done: {out}, {counted(len(made['answered']), 'change')}; what becomes of it is told by")
    terminal.say(f"  selfsight synth {out} --out {folder}{drawn}")
    terminal.say(f"  selfsight compare {folder} --tasks shift {encoders} --before {before} --out {folder}-results")


def _scores(results: Results) -> Table:
    """The primary metric of each task, and balanced accuracy, with intervals; the report has the rest."""
    shown = [(s.task, s.metric) for s in results.scores if s.metric in _SHOWN]
    table = Table(title="percent, with intervals of 95 %", title_justify="left")
    table.add_column("encoder", overflow="fold")
    for task, metric in dict.fromkeys(shown):
        table.add_column(f"{task} {metric}", justify="right", no_wrap=True)
    table.add_column("images/s", justify="right")
    for encoder in results.encoders:
        scores = [results.score(encoder.spec, task, metric) for task, metric in dict.fromkeys(shown)]
        cells = [f"{s.value:.1f} [dim]({s.low:.1f} .. {s.high:.1f})[/]" for s in scores]
        speed = next(c.images_per_second for c in results.cost if c.encoder == encoder.spec)
        table.add_row(f"{escape(encoder.spec)} [dim]{encoder.role}[/]", *cells, f"{speed:,.0f}")
    return table


def _looks(found: Segmentation) -> Table:
    """Jaccard at 60 % of the own maps and of the best head, and CorLoc; the report has the rest, and the intervals."""
    title = f"what they look at: percent of Jaccard at 60 % (map, best head) and of CorLoc, {found.n} pictures with masks"
    table = Table(title=title, title_justify="left")
    ways = dict.fromkeys(s.method for s in found.scores if s.metric == "corloc" and s.method != FLOOR)
    columns = {"own map": ("", "jaccard_60"), "best head": ("heads", "jaccard_60"), **{way: (way, "corloc") for way in ways}}
    table.add_column("encoder", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for encoder in dict.fromkeys(s.encoder for s in found.scores):
        scores = [found.score(encoder, *column) for column in columns.values()]
        cells = [f"{score.value:.1f}" if score else "-" for score in scores]
        table.add_row(f"{escape(encoder)} [dim]{found.own.get(encoder, FLOOR)}[/]", *cells)
    return table


def _effects(results: Results, found: Shift) -> Table:
    """What is left under each shift, and the change; those that may be chance are dim."""
    title = f"percent under shift (change in points), {found.n_test} scenes of {found.data}; dim: may be chance"
    table = Table(title=title, title_justify="left")
    table.add_column("factor that is shifted", overflow="fold")
    for encoder in results.encoders:
        table.add_column(escape(encoder.spec), justify="right", overflow="fold")
    by = {(e.encoder, e.condition): e for e in found.effects}
    for condition in dict.fromkeys(e.condition for e in found.effects):
        cells = []
        for e in (by[encoder.spec, condition] for encoder in results.encoders):
            text = f"{e.shifted:.1f} ({e.change:+.1f})"
            cells.append(text if e.p_holm < shifts.SURE else f"[dim]{text}[/]")
        table.add_row(escape(shifts.condition_name(condition)), *cells)
    return table
