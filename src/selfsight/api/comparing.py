"""`compare` and `report`: encoders against each other on the user's images, and the page that tells the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfsight import device as devices
from selfsight.api.watch import Silent, Watch
from selfsight.comparison.gather import About, Machine
from selfsight.comparison.labelfree import run_labelfree
from selfsight.comparison.plan import make_plan
from selfsight.comparison.run import run_comparison
from selfsight.comparison.split import split
from selfsight.data.sources import first, open_source
from selfsight.errors import DataError
from selfsight.evaluate import TASKS
from selfsight.reporting import render
from selfsight.results import Results


def compare(
    data: str | Path,
    encoder: Sequence[str],
    out: str | Path,
    *,
    test: str | Path | None = None,
    incumbent: str | None = None,
    tasks: Sequence[str] | None = None,
    margin: float = 1.0,
    seeds: int = 1,
    seed: int = 0,
    limit: int | None = None,
    group_by: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    images: bool = True,
    title: str | None = None,
    notes: Sequence[str] = (),
    watch: Watch | None = None,
) -> Results:
    """Compare encoders on labelled images and write results and report to `out`; without labels there is no verdict.

    Defaults: the incumbent is the first encoder, the tasks are knn and linear, the endpoint is linear top-1, the margin is one
    point. Without `test` a quarter of each class is held out and the split is written down. Labels are taken from `data`; where
    it has none, maps, neighbours and advice on labelling are written instead. `images=False` keeps every picture and file name
    out of the report. Raises `InputError` before any work for what is wrong.
    """
    watch = watch or Silent()
    plan = make_plan(list(encoder), incumbent, list(tasks or TASKS), margin, seeds, seed)
    source = open_source(data)
    machine = Machine(str(devices.resolve(device)), workers, batch_size, watch.say, watch.advance)
    folder = Path(out)
    about = About(title or Path(source.location).stem, tuple(notes), images)
    if source.labels is None:
        if test is not None:
            raise DataError(f"{data}: has no labels, so --test has nothing to judge; expected a sub-folder for each class")
        results = run_labelfree(plan, first(source, limit), folder, machine, about)
    else:
        parts = split(source, None if test is None else str(test), limit=limit, group_by=group_by, seed=seed)
        results = run_comparison(plan, parts, folder, machine, about)
    render(folder, images=images)
    return results


def report(folder: str | Path, *, images: bool = True) -> Path:
    """Draw `report.html` of a results folder again, from the folder alone; returns its path."""
    return render(Path(folder), images=images)
