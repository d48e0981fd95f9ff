"""What the command line shows: progress bars, tables and closing lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from selfsight.checkup import Finding
from selfsight.comparison.verdict import sentence
from selfsight.device import leads
from selfsight.reporting import shifts
from selfsight.results import FLOOR, Results, Segmentation, Shift
from selfsight.runs import RunFolder, counted, read_jsonl
from selfsight.ssl.estimate import Estimate
from selfsight.ssl.recipes import Derived
from selfsight.ssl.settings import TrainSettings
from selfsight.synthesis.sampler import counts
from selfsight.synthesis.spec import SynthSpec, described

_STYLE = {"replace": "bold green", "keep": "bold blue", "undecided": "bold yellow"}
_SHOWN = ("top1_k20", "top1", "balanced_accuracy")
_MARK = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}


class Terminal:
    """Watches a verb and shows it: one progress bar at a time, lines above it."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True, quiet=not leads())
        if not self.console.is_terminal:
            self.console.width = 120  # a log file has no width of its own
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._probe = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def advance(self, what: str, done: int, total: int) -> None:
        self._bar(what, total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        if done >= total:
            self._stop()

    def on_plan(self, settings: TrainSettings, derived: Sequence[Derived], expected: Estimate) -> None:
        table = Table(title=f"recipe {settings.recipe}: derived for these images", title_justify="left")
        for column in ("setting", "value", "because"):
            table.add_column(column)
        for row in derived:
            table.add_row(row.key, str(row.value), row.why)
        self.console.print(table)
        budget = f"{settings.minutes:g} minutes" if settings.minutes else f"{settings.epochs:g} epochs"
        self.say(
            f"{budget} on {settings.images} images: about {expected.steps} steps of {expected.step_seconds:.2f} s, "
            f"{_duration(expected.seconds)} in all, {_bytes(expected.disk_bytes)} on disk"
        )

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        self._bar("training", 1.0)
        if self._progress is not None and self._task is not None:
            chance = f" ({row['loss_over_chance']:.0%} of chance)" if "loss_over_chance" in row else ""
            text = (
                f"step {row['step']}  epoch {row['epoch']:.1f}  loss {row['loss']:.3f}{chance}  "
                f"{row['images_per_second']:.0f} images/s  waiting for data {row['wait_share']:.0%}{self._probe}"
            )
            self._progress.update(self._task, completed=progress, description=text)
        if progress >= 1.0:
            self._stop()

    def on_probe(self, row: Mapping[str, Any]) -> None:
        knn = f"  20-NN {row['knn_top1']:.1f} %" if "knn_top1" in row else ""
        self._probe = f"{knn}  rank {row['rankme']:.1f}"
        self.say(f"  epoch {row['epoch']:6.2f}  {_duration(row['elapsed_s']):>8}{self._probe}")

    def _bar(self, what: str, total: float) -> None:
        if self._what == what and self._progress is not None:
            return
        self._stop()
        self._what = what
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._task = self._progress.add_task(what, total=total)
        self._progress.start()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._task, self._what = None, None, ""


def train_summary(out: Path, summary: Mapping[str, Any]) -> str:
    """The closing line of a training."""
    knn = f", 20-NN {summary['knn_top1']:.1f} %" if "knn_top1" in summary else ""
    text = f"done: {out}, {summary['step']} steps in {_duration(summary['elapsed_s'])}, loss {summary['loss']:.3f}{knn}"
    text += f", {summary['peak_memory_mb'] / 2**10:.1f} GiB at most"
    return text + skipped(RunFolder(out).bad_images)


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


def views_summary(terminal: Terminal, made: Mapping[str, Any]) -> None:
    """How long views take on this machine, and where the sheet is."""
    table = Table(title=f"this machine, timed on {made['timed_images']} images", title_justify="left")
    table.add_column("stage")
    table.add_column("where")
    table.add_column("speed", justify="right")
    for row in _pace(made):
        table.add_row(*row)
    terminal.console.print(table)
    bad = made["bad_images"]
    left_out = f"; {len(bad)} files left out, first {bad[0]['key']} ({bad[0]['reason']})" if bad else ""
    terminal.say(f"done: {made['sheet']}, {len(made['images'])} images{left_out}")


def _pace(made: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table of `views_summary`."""
    on = "one core" if made["device"] == "cpu" else made["device"]
    where = {"read": "one core", "decode": "one core", "crop": "one core", "photometry": on}
    rows = [(stage, core, f"{made[f'{stage}_ms']:.2f} ms an image") for stage, core in where.items()]
    workers = f"{made['workers']} worker{'s' if made['workers'] > 1 else ''}" if made["workers"] else "the training itself"
    rows.append(("all of it", "one core", f"{made['worker_images_per_second']:.0f} images/s"))
    rows.append(("loading", workers, f"{made['loader_images_per_second']:.0f} images/s"))
    if made["wait_share"] is not None:
        rows.append(("network", made["device"], f"{made['network_images_per_second']:.3g} images/s"))
        rows.append(("waiting for data", "a training", f"{made['wait_share']:.0%} of its time"))
    return rows


def spread_table(terminal: Terminal, spec: SynthSpec, base: Path, count: int) -> None:
    """What `synth` would draw, without drawing it."""
    numbers = ", ".join(f"{split} {number}" for split, number in counts(spec, count).items())
    width, height = spec.size
    terminal.say(f"{spec.name}: {width} x {height} pixels by {spec.backend}: {numbers}")
    for name, given in spec.classes.items():
        terminal.say(f"  {name}: {counted(len(given.assets), 'asset')}, the first {given.assets[0]}")
    terminal.say(f"files are relative to {base}")
    table = Table()
    for column in ("factor", "in training", "elsewhere"):
        table.add_column(column)
    for row in described(spec):
        table.add_row(*map(escape, row))
    terminal.console.print(table)


def doctor_table(findings: Sequence[Finding]) -> None:
    table = Table(show_header=False, box=None)
    for finding in findings:
        table.add_row(_MARK[finding.level], finding.what, finding.text)
    Console(highlight=False).print(table)


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


def skipped(listed: Path) -> str:
    """What a closing line says of files that could not be read, from their list; nothing where there is none."""
    rows = read_jsonl(listed)
    if not rows:
        return ""
    return f"; {counted(len(rows), 'file')} skipped, first {rows[0]['key']} ({rows[0]['reason']}), all in {listed}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
