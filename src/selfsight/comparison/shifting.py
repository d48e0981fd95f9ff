"""Every encoder before a drawn set whose splits shift one factor each: the task `shift`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfsight.comparison.as_deployed import Columns, answers
from selfsight.comparison.assets import write_parquet
from selfsight.comparison.gather import Gathered, Machine, gather
from selfsight.comparison.outcomes import CLEAN, Outcomes
from selfsight.comparison.plan import SHIFT, Plan
from selfsight.comparison.refine import Watched, since
from selfsight.comparison.shift_outcomes import ShiftOutcomes
from selfsight.comparison.shift_set import ShiftSet, numbers
from selfsight.comparison.slices import LEAST
from selfsight.data.sources import BadImage, Source
from selfsight.encoders import Encoder
from selfsight.evaluate import FeatureSet, Shift
from selfsight.results import Comparison, Score, ShiftSince
from selfsight.results import Shift as ShiftRecord

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examined:
    """What was found. `apart` says that the set is other images than those which the verdict is of."""

    exam: ShiftSet
    outcomes: ShiftOutcomes
    n_train: int
    apart: bool
    bad: list[BadImage] = field(default_factory=list)

    @property
    def conditions(self) -> list[str]:
        """Those whose scores and outcomes stand beside the others; `clean` is among the others' where the images are the same."""
        return list(self.outcomes.answers) if self.apart else self.outcomes.conditions

    def scores(self) -> list[Score]:
        return self.outcomes.scores(self.conditions)

    def comparisons(self, plan: Plan) -> list[Comparison]:
        return self.outcomes.comparisons(plan.pairs)

    def record(self, plan: Plan) -> ShiftRecord:
        return ShiftRecord(
            data=str(self.exam.folder),
            n_train=self.n_train,
            n_test=len(self.outcomes.scenes[CLEAN]),
            factors=self.outcomes.factors,
            effects=self.outcomes.effects(plan.encoders),
            gaps=self.outcomes.gaps(plan.pairs),
            slices=self.outcomes.slices(plan.encoders),
            protocol=_protocol(self, plan),
            before=self.exam.before,
            since=self._since(plan),
        )

    def _since(self, plan: Plan) -> list[ShiftSince]:
        if self.exam.before is None:
            return []
        answered = [Watched.of(row) for row in self.exam.refined]
        return since(self.exam.before, self.outcomes, plan.encoders, answered)


def write_factors(folder: Path, examined: Examined | None) -> None:
    """`factors.parquet`; what an earlier comparison left goes."""
    path = folder / "factors.parquet"
    path.unlink(missing_ok=True)
    if examined is not None:
        write_parquet(path, examined.outcomes.factor_rows())


@dataclass(frozen=True)
class _Gathered:
    """Features of the training images and of every condition."""

    exam: ShiftSet
    train: Gathered
    found: dict[str, Gathered]

    def features(self, encoder: str) -> FeatureSet:
        """Of one encoder, the conditions one after the other."""
        taught, kept = self.exam.train.images, self.train.indices
        stacked = np.concatenate([part.vectors[encoder] for part in self.found.values()])
        groups = None if self.exam.group_by is None else taught.groups(self.exam.group_by)[kept]
        return FeatureSet(self.train.vectors[encoder], _labels(taught)[kept], stacked, len(taught.classes), groups)

    def parted(self, predicted: Ints) -> Iterator[tuple[str, Ints]]:
        """By condition."""
        ends = np.cumsum([len(part.indices) for part in self.found.values()])
        yield from zip(self.found, np.split(predicted, ends[:-1]), strict=True)


def examine(
    plan: Plan,
    exam: ShiftSet,
    encoders: dict[str, Encoder],
    places: Mapping[str, Columns],
    machine: Machine,
    known: tuple[Gathered, Gathered],
) -> Examined:
    """All encoders on the same pictures of every split: one read-out each, fitted on `train` and asked about all others.

    `known` are features of the training and test images that the verdict is of.
    """
    train, test = known
    if SHIFT not in plan.tasks:
        train = gather(encoders, exam.train.images, "drawn training", machine)
        test = gather(encoders, exam.tests[CLEAN].images, "drawn test", machine)
    quiet = replace(machine, say=lambda text: None)  # what is to be said of an encoder has been said of the training images
    found = {CLEAN: test} | {name: gather(encoders, exam.tests[name].images, name, quiet) for name in exam.conditions}
    gathered, outcomes = _Gathered(exam, train, found), _empty(exam, found)
    for done, encoder in enumerate(plan.encoders):
        machine.advance(f"{SHIFT}, {encoder}", done, len(plan.encoders))
        features = gathered.features(encoder)
        for seed in plan.seeds:
            if encoder in places:
                [(_, told)] = answers(features.test, places[encoder], {SHIFT: Shift.primary})
            else:
                [told] = Shift().run(features, seed=seed, device=machine.device)
                machine.say(f"{SHIFT}, {encoder}, seed {seed}: {told.note}")
            for condition, predicted in gathered.parted(told.predicted):
                outcomes.answers[condition].predicted.setdefault(outcomes.key(encoder), {})[seed] = predicted
    machine.advance(SHIFT, len(plan.encoders), len(plan.encoders))
    bad = [*train.bad, *(image for part in found.values() for image in part.bad)]
    return Examined(exam, outcomes, len(train.indices), SHIFT not in plan.tasks, bad)


def _empty(exam: ShiftSet, found: Mapping[str, Gathered]) -> ShiftOutcomes:
    """The pictures that could be read, and nothing said of them yet."""
    made = ShiftOutcomes(SHIFT, Shift.primary, {}, {}, {}, exam.training)
    for condition, part in exam.tests.items():
        images, kept = part.images, found[condition].indices
        groups = None if exam.group_by is None else images.groups(exam.group_by)[kept]
        keys = [images.keys[place] for place in kept]
        made.answers[condition] = Outcomes(keys, _labels(images)[kept], groups, {}, condition)
        made.scenes[condition] = np.array(numbers(part), dtype=np.int64)[kept]
        made.values[condition] = {name: [part.rows[place][name] for place in kept] for name in exam.training}
    return made


def _labels(source: Source) -> Ints:
    assert source.labels is not None
    return source.labels


def _protocol(examined: Examined, plan: Plan) -> list[str]:
    """How it was done, in words."""
    outcomes = examined.outcomes
    tests = len(outcomes.scenes[CLEAN])
    shifts = len(outcomes.conditions)
    return [
        f"read-out: a {Shift.read_out} for each encoder, fitted once on the {examined.n_train} pictures of the split train, then "
        f"asked about the {tests} of test (clean) and those of each of {shifts} splits in which one factor is another; one "
        "that is compared as it is deployed answers with its own head",
        "change under a shift: picture by picture of the same scene, shifted minus clean; p: exact McNemar, by Holm over "
        f"{shifts * len(plan.encoders)} (every encoder under every shift)",
        "whom a shift hurts more: the change of one encoder minus that of the other, picture by picture of the same scene; p: "
        f"exact sign-flip test, by Holm over {shifts * len(plan.pairs)} (the pairs of the plan under every shift)",
        f"slices: thirds of the test pictures by a factor of numbers, each value of one of names; none of fewer than {LEAST} "
        "pictures; a slice against all other test pictures; p: Fisher's exact test, by Holm over all slices of an encoder. The "
        "least of many accuracies is low by chance, too: go by its p",
        "of pictures with several objects the factors of objects are those of the first one",
        "intervals: percentile bootstrap, 95 %, each on its own; shifts take no part in the verdict",
    ]
