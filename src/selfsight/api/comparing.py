"""`compare` and `report`: encoders against each other on the user's images, and the page that tells the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfsight import device as devices
from selfsight.api.examining import COUNT, Examination, examination, opened, tasks_of
from selfsight.api.tolerance import tolerance
from selfsight.api.tuned_task import FineTune
from selfsight.api.watch import Silent, Watch
from selfsight.comparison.gather import About, Machine
from selfsight.comparison.labelfree import run_labelfree
from selfsight.comparison.looking import PICTURES, Masks
from selfsight.comparison.plan import Plan, make_plan
from selfsight.comparison.run import run_comparison
from selfsight.comparison.seen import refuse_seen
from selfsight.comparison.split import judged_on, split
from selfsight.data.annotations import ANNOTATIONS, open_annotations
from selfsight.data.sources import Source, Subset, first, open_source
from selfsight.errors import ConfigError, DataError
from selfsight.reporting import render
from selfsight.results import Results
from selfsight.synthesis.spec import SynthSpec

_LISTS = "the images have lists of labels, which are not compared yet: they count as images without labels"


def compare(
    data: str | Path | None,
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
    masks: str | Path | None = None,
    mask_limit: int = PICTURES,
    shift: str | Path | SynthSpec | None = None,
    shift_count: int = COUNT,
    before: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    images: bool = True,
    title: str | None = None,
    notes: Sequence[str] = (),
    watch: Watch | None = None,
) -> Results:
    """Compare encoders on labelled images and write results and report to `out`; without labels there is no verdict.

    Defaults: the incumbent is the first encoder, the tasks are knn and linear, the endpoint is linear top-1, the margin is one
    point. Without `test` the column `split` of a table or drawn set says which images train and which test; else a quarter of
    each class is held out and the split is written down. Labels are taken from `data`; where it has none, maps, neighbours and
    advice on labelling are written instead. The task finetune trains every encoder whole, with the same search, and keeps its
    runs in `out`/finetuned. The task segmentation measures what each encoder looks at against `masks` (see `data/annotations`;
    those by the images are found), on `mask_limit` test images at most; it takes no part in the verdict. The task shift asks
    where encoders stop seeing: `data` is then a drawn set, of which `train` and `test` are compared on, and the splits that shift
    a factor stand beside them. `shift` is such a set, or a spec that is drawn to `out`/drawn first, with `shift_count` training
    pictures; without `data` it is all there is, with `data` the verdict is of that. `before` is the results folder of such a
    comparison on the same test pictures, whose training was another (see `refine`). `images=False` keeps every picture and file
    name out of the report. More unreadable images than `max_bad` percent of a part stop the work.
    Raises `InputError` before any work for what is wrong.
    """
    watch = watch or Silent()
    bearing = tolerance(strict, max_bad)
    on_images = {"finetune": FineTune(Path(out) / "finetuned", watch, bearing, workers)}
    wanted = tasks_of(tasks, data, shift)
    plan = make_plan(list(encoder), incumbent, wanted, margin, seeds, seed, on_images, shift_apart=None not in (data, shift))
    _check_masks(plan, masks, mask_limit)
    asked = examination(data, shift, wanted, test, Path(out), shift_count, seed)
    if before is not None and asked is None:
        raise ConfigError(f"--before {before}: is looked at by the task shift; add it to --tasks, or leave --before out")
    if asked is not None and not asked.apart:
        title, asked = title or asked.folder.name, asked.made(watch)
        data, test = asked.parts
    assert data is not None
    source = open_source(data)
    machine = Machine(str(devices.resolve(device)), workers, batch_size, watch.say, watch.advance, bearing, max_pixels)
    folder = Path(out)
    if source.label_sets is not None:
        watch.say(f"{data}: {_LISTS}")
        notes = (*notes, _LISTS)
    about = About(title or Path(source.location).stem, tuple(notes), images)
    if source.labels is None:
        _check_unlabelled(data, test, group_by, asked)
        source = _some(source, limit, seed)
        results = run_labelfree(plan, source, folder, machine, about, _masks(plan, source, masks, mask_limit))
    else:
        if not plan.tasks:
            named = ",".join(wanted)
            raise ConfigError(f"--tasks {named}: takes no part in the verdict; {data} has labels, so add knn or linear")
        _check_classes(source, watch)
        refuse_seen(plan.encoders, judged_on(source, str(data)) if test is None else str(test))
        parts = split(source, None if test is None else str(test), limit=limit, group_by=group_by, seed=seed)
        seen = _masks(plan, parts.test, masks, mask_limit)
        exam = None if asked is None else opened(asked, plan.encoders, watch, limit=limit, group_by=group_by, before=before)
        results = run_comparison(plan, parts, folder, machine, about, seen, exam)
    render(folder, images=images)
    return results


def _some(source: Source, limit: int | None, seed: int) -> Source:
    """At most `limit` of its images; not the first ones, which would all be of the first folders."""
    if limit is not None and 0 < limit < len(source):
        return Subset(source, np.sort(np.random.default_rng(seed).permutation(len(source))[:limit]))
    return first(source, limit)


def _check_unlabelled(data: str | Path, test: object | None, group_by: str | None, asked: Examination | None) -> None:
    if test is not None:
        raise DataError(f"{data}: has no labels, so --test has nothing to judge; expected a sub-folder for each class")
    if group_by is not None:
        raise DataError(f"{data}: has no labels, so there is nothing to split by --group-by; leave it out")
    if asked is not None:
        raise DataError(f"{data}: has no labels; leave it out to compare on the set of --shift alone")


def _check_masks(plan: Plan, masks: str | Path | None, limit: int) -> None:
    if masks is not None and not plan.segmentation:
        raise ConfigError(f"--masks {masks}: are looked at by the task segmentation; add it to --tasks, or leave --masks out")
    if limit < 1:
        raise ConfigError(f"--mask-limit: expected a whole number from 1, got {limit}")


def _masks(plan: Plan, source: Source, masks: str | Path | None, limit: int) -> Masks | None:
    """Those at the place that was given, or by the images; None where the task was not asked for."""
    if not plan.segmentation:
        return None
    annotations = open_annotations(source, masks)
    if annotations is None:
        expected = ", ".join(kind.expects for kind in ANNOTATIONS.values())
        raise DataError(f"--tasks segmentation: no masks are by the images of {source.location}; give --masks: {expected}")
    return Masks(annotations, limit, plan.seeds[0])


def _check_classes(source: Source, watch: Watch) -> None:
    """Say what was taken for classes; folders named after splits are none."""
    names = source.classes
    if {name.lower() for name in names} <= {"train", "test", "val", "valid", "validation"}:
        some = ", ".join(names)
        raise DataError(f"{source.location}: its sub-folders {some} are splits, not classes; give one as DATA, another as --test")
    watch.say(f"labels: {len(names)} classes: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}")


def report(folder: str | Path, *, images: bool = True) -> Path:
    """Draw `report.html` of a results folder again, from the folder alone; returns its path."""
    return render(Path(folder), images=images)
