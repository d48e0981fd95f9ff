"""The comparison: features, tasks, paired differences, verdict, and the results folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from selfsight import results, runs
from selfsight.comparison import assets
from selfsight.comparison.as_deployed import Columns, all_columns, answers
from selfsight.comparison.gather import About, Gathered, Machine, costs, gather, load_all, record, write_bad
from selfsight.comparison.looking import Masks, eyes_of, measure, write_measured
from selfsight.comparison.outcomes import CLEAN, Key, Outcomes
from selfsight.comparison.plan import SHIFT, Plan
from selfsight.comparison.shift_outcomes import merged
from selfsight.comparison.shift_set import ShiftSet
from selfsight.comparison.shifting import Examined, examine, write_factors
from selfsight.comparison.split import Parts
from selfsight.comparison.verdict import decide
from selfsight.data.sources import Source, Subset
from selfsight.data.tolerance import listed
from selfsight.encoders import parse_spec
from selfsight.evaluate import TASKS, FeatureSet, ImageSet
from selfsight.results import Comparison, DataRecord, Results

_GALLERY = 24


def run_comparison(
    plan: Plan,
    parts: Parts,
    folder: Path,
    machine: Machine,
    about: About,
    masks: Masks | None = None,
    exam: ShiftSet | None = None,
) -> Results:
    """Compare all encoders of `plan` on `parts`, on the test images against `masks`, and on the drawn set `exam`, and write the
    results folder. Where `shift` is among the tasks, `parts` are the training and test split of that set."""
    folder.mkdir(parents=True, exist_ok=True)
    encoders = load_all(plan.encoders, machine)
    eyes = eyes_of(encoders, machine) if masks is not None else {}
    places = all_columns(encoders, parts.train.classes)
    for task, spec in ((task, spec) for task in plan.tasks if task in plan.on_images for spec in encoders if spec not in places):
        plan.on_images[task].check(spec)
    unreadable = folder / "bad_images.jsonl"
    with listed(unreadable):
        train, test = gather(encoders, parts.train, "training", machine), gather(encoders, parts.test, "test", machine)
        seen = None
        if masks is not None:
            asked = Subset(parts.test, test.indices)
            seen = measure(eyes, asked, masks, machine, group_by=parts.group_by, images=about.images)
        examined = examine(plan, exam, encoders, places, machine, (train, test)) if exam is not None else None
    bad = write_bad(unreadable, [*train.bad, *test.bad, *(seen.bad if seen else []), *(examined.bad if examined else [])])
    spent = costs(plan.encoders, machine)
    outcomes = _evaluate(plan, parts, train, test, machine, places)
    if examined is not None and SHIFT in plan.tasks:
        outcomes.predicted |= examined.outcomes.answers[CLEAN].predicted
    scores = [*outcomes.scores(), *(examined.scores() if examined else [])]
    metric = plan.primary[plan.endpoint]
    ends = {e: float(outcomes.correct(Key(e, plan.endpoint, metric)).mean()) for e in plan.encoders}
    challenger = plan.challenger(ends)
    comparisons = outcomes.comparisons(plan.pairs, plan.primary)
    by_spec = {c.encoder: c for c in spent}
    pair = next(c for c in comparisons if (c.a, c.b, c.task) == (plan.incumbent, challenger, plan.endpoint))
    found = Results(
        title=about.title,
        encoders=[record(encoders[e], plan.role(e, challenger)) for e in plan.encoders],
        data=_data_record(parts, train, test, bad, outcomes, about),
        plan=plan.lines(),
        scores=scores,
        comparisons=[*comparisons, *(examined.comparisons(plan) if examined else [])],
        verdict=decide(pair, by_spec[plan.incumbent], by_spec[challenger], plan.margin),
        cost=spent,
        segmentation=seen.record(plan) if seen else None,
        shift=examined.record(plan) if examined else None,
        provenance=runs.environment() | {"seeds": list(plan.seeds), "notes": {e: encoders[e].notes for e in plan.encoders}},
    )
    assets.write_parquet(folder / "per_image.parquet", _rows(outcomes, examined))
    write_factors(folder, examined)
    _write_assets(folder, plan, parts, test, outcomes, pair, images=about.images)
    _write_split(folder, parts, train, test)
    write_measured(folder, seen)
    results.write(found, folder)
    return found


def _evaluate(
    plan: Plan, parts: Parts, train: Gathered, test: Gathered, machine: Machine, places: Mapping[str, Columns]
) -> Outcomes:
    assert parts.train.labels is not None and parts.test.labels is not None
    train_labels, test_labels = parts.train.labels[train.indices], parts.test.labels[test.indices]
    groups = None if parts.group_by is None else parts.train.groups(parts.group_by)[train.indices]
    test_groups = None if parts.group_by is None else parts.test.groups(parts.group_by)[test.indices]
    taught, asked = Subset(parts.train, train.indices), _without_labels(Subset(parts.test, test.indices))
    outcomes = Outcomes([parts.test.keys[i] for i in test.indices], test_labels, test_groups, {})
    tasks = [task for task in plan.tasks if task != SHIFT]  # its answers come with those to the shifted pictures
    total = len(plan.encoders) * len(tasks)
    done = 0
    for encoder in plan.encoders:
        if encoder in places:
            for task, answered in answers(test.vectors[encoder], places[encoder], {task: plan.primary[task] for task in tasks}):
                by_seed = dict.fromkeys(plan.seeds_of(task), answered.predicted)
                outcomes.predicted[Key(encoder, task, answered.metric)] = by_seed
            done += len(tasks)
            continue
        features = FeatureSet(train.vectors[encoder], train_labels, test.vectors[encoder], len(parts.train.classes), groups)
        images = ImageSet(encoder, taught, asked, parts.group_by)
        for task in tasks:
            machine.advance(f"{task}, {encoder}", done, total)
            for seed in plan.seeds_of(task):
                if task in plan.on_images:
                    found = plan.on_images[task].run(images, seed=seed, device=machine.device)
                else:
                    found = TASKS[task]().run(features, seed=seed, device=machine.device)
                for metric, predicted, note in found:
                    outcomes.predicted.setdefault(Key(encoder, task, metric), {})[seed] = predicted
                    if note:
                        machine.say(f"{task}, {encoder}, seed {seed}: {note}")
            done += 1
            machine.advance(f"{task}, {encoder}", done, total)
    return outcomes


def _rows(outcomes: Outcomes, examined: Examined | None) -> dict[str, list[object]]:
    """Columns of `per_image.parquet`."""
    return merged([outcomes.rows(), *([examined.outcomes.rows(examined.conditions)] if examined else [])])


def _without_labels(source: Source) -> Source:
    source.labels, source.label_sets, source.classes = None, None, ()
    return source


def _data_record(parts: Parts, train: Gathered, test: Gathered, bad: int, outcomes: Outcomes, about: About) -> DataRecord:
    notes = [*about.notes, *parts.notes]
    if outcomes.groups is not None:
        notes.append(f"intervals resample the {len(np.unique(outcomes.groups))} groups of '{parts.group_by}' in the test images")
        notes.append("McNemar's p takes images as independent, so with groups it is too small: go by the intervals")
    if bad:
        notes.append(f"{bad} files could not be read as images and were left out; bad_images.jsonl lists them with the reason")
    return DataRecord(
        train=parts.train.location,
        test=None if parts.made else parts.test.location,
        n_train=len(train.indices),
        n_test=len(test.indices),
        classes=list(parts.train.classes),
        split=parts.description,
        group_by=parts.group_by,
        bad_images=bad,
        notes=notes,
    )


def _write_assets(
    folder: Path,
    plan: Plan,
    parts: Parts,
    test: Gathered,
    outcomes: Outcomes,
    pair: Comparison,
    *,
    images: bool,
) -> None:
    at = folder / "assets"
    assets.write_curves(at / "curves.json", run_folders(plan.encoders))
    chosen = np.sort(np.random.default_rng(0).permutation(len(test.indices))[: assets.MAP_POINTS])
    shown = {e: test.vectors[e][chosen] for e in plan.encoders if e not in plan.floors or e == pair.b}
    assets.write_map(at / "map.parquet", shown, [outcomes.keys[i] for i in chosen], outcomes.labels[chosen], 0)
    thumbs = at / "thumbs.parquet"
    thumbs.unlink(missing_ok=True)
    if images:
        gallery = _disagreements(outcomes, pair)
        assets.write_thumbnails(thumbs, parts.test, [int(test.indices[i]) for i in [*gallery, *chosen]])


def _disagreements(outcomes: Outcomes, pair: Comparison) -> list[int]:
    """Test images that exactly one of the two gets right, both ways, drawn with a fixed seed."""
    a, b = (outcomes.correct(Key(e, pair.task, pair.metric)) > 0.5 for e in (pair.a, pair.b))
    rng = np.random.default_rng(0)
    return [int(i) for rows in (np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)) for i in rng.permutation(rows)[:_GALLERY]]


def run_folders(encoders: tuple[str, ...]) -> dict[str, runs.RunFolder]:
    """The runs among the encoders whose training curves there are; an untrained copy has none of its own."""
    parsed = {e: parse_spec(e) for e in encoders}
    return {
        e: runs.RunFolder(spec.path)
        for e, spec in parsed.items()
        if spec.family == "runs" and spec.options.get("weights") != "init"
    }


def _write_split(folder: Path, parts: Parts, train: Gathered, test: Gathered) -> None:
    path = folder / "split.parquet"
    path.unlink(missing_ok=True)
    if parts.made:
        keys = [parts.train.keys[i] for i in train.indices] + [parts.test.keys[i] for i in test.indices]
        assets.write_parquet(path, {"key": keys, "part": ["train"] * len(train.indices) + ["test"] * len(test.indices)})
