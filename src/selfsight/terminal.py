"""What the command line shows: progress bars, tables and closing lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from selfsight.runs import RunFolder, counted, read_jsonl

if TYPE_CHECKING:
    from selfsight.checkup import Finding
    from selfsight.ssl.estimate import Estimate
    from selfsight.ssl.recipes import Derived
    from selfsight.ssl.settings import TrainSettings

_MARK = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}


class Terminal:
    """Watches a verb and shows it: one progress bar at a time, lines above it."""

    def __init__(self) -> None:
        leads = os.environ.get("RANK", "0") == "0"  # one of the processes that torchrun started speaks for all
        self.console = Console(highlight=False, soft_wrap=True, quiet=not leads)
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


def doctor_table(findings: Sequence[Finding]) -> None:
    table = Table(show_header=False, box=None)
    for finding in findings:
        table.add_row(_MARK[finding.level], finding.what, finding.text)
    Console(highlight=False).print(table)


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
