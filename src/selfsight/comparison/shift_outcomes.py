"""What follows from the answers to a drawn set: how far each encoder falls under each shift, whom it hurts more, and which
slices of the test pictures stand out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight import statistics
from selfsight.comparison.outcomes import CLEAN, Key, Outcomes
from selfsight.comparison.shift_set import factor_of
from selfsight.comparison.slices import LEAST, Slice, is_numbers, outside, slices
from selfsight.results import Comparison, Score, ShiftEffect, ShiftFactor, ShiftGap, SliceScore

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Places among the test pictures, and of the same scenes among those of a shifted split."""

    clean: Ints
    shifted: Ints


@dataclass
class ShiftOutcomes:
    """`answers[condition]` are those of all encoders to the pictures of a split, `clean` among them; `scenes[condition]` numbers
    the scene of each picture, and `values[condition][factor]` are its factors (None where it has no object)."""

    task: str
    metric: str
    answers: dict[str, Outcomes]
    scenes: dict[str, Ints]
    values: dict[str, dict[str, list[Any]]]
    training: dict[str, list[Any]]

    @property
    def conditions(self) -> list[str]:
        return [condition for condition in self.answers if condition != CLEAN]

    @property
    def factors(self) -> list[ShiftFactor]:
        numbers = {name: is_numbers([v for v in self.values[CLEAN][name] if v is not None]) for name in self.training}
        return [ShiftFactor(name=name, training=known, numbers=numbers[name]) for name, known in self.training.items()]

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """Of each shifted condition the scenes of which both pictures could be read."""
        found = {}
        for condition in self.conditions:
            _, *places = np.intersect1d(self.scenes[CLEAN], self.scenes[condition], return_indices=True)
            found[condition] = Pairs(*places)
        return found

    def key(self, encoder: str) -> Key:
        return Key(encoder, self.task, self.metric)

    def scores(self, conditions: Sequence[str]) -> list[Score]:
        return [score for condition in conditions for score in self.answers[condition].scores()]

    def comparisons(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """The shifted conditions as a family of their own."""
        found = [c for name in self.conditions for c in self.answers[name].comparisons(pairs, {self.task: self.metric})]
        adjusted = statistics.holm([c.p for c in found])
        return [c.model_copy(update={"p_holm": p}) for c, p in zip(found, adjusted, strict=True)]

    def effects(self, encoders: Sequence[str]) -> list[ShiftEffect]:
        """Every encoder under every shift, in pairs of the same scene."""
        found = [self._effect(encoder, condition) for condition in self.conditions for encoder in encoders]
        adjusted = statistics.holm([effect.p for effect in found])
        return [effect.model_copy(update={"p_holm": p}) for effect, p in zip(found, adjusted, strict=True)]

    def gaps(self, pairs: Sequence[tuple[str, str]]) -> list[ShiftGap]:
        """The difference of the differences: every pair (a, b) under every shift."""
        found = [self._gap(a, b, condition) for condition in self.conditions for a, b in pairs]
        adjusted = statistics.holm([gap.p for gap in found])
        return [gap.model_copy(update={"p_holm": p}) for gap, p in zip(found, adjusted, strict=True)]

    def slices(self, encoders: Sequence[str]) -> list[SliceScore]:
        """Of the test pictures by every factor, and of each shifted split by that which it shifts; none below `LEAST`."""
        cut = {CLEAN: [s for factor in self.training for s in self._cut(CLEAN, factor)]}
        cut |= {condition: self._cut(condition, factor_of(condition)) for condition in self.conditions}
        return [score for encoder in encoders for score in self._scored(encoder, cut)]

    def rows(self, conditions: Sequence[str]) -> dict[str, list[object]]:
        """Columns of `per_image.parquet`."""
        return merged([self.answers[condition].rows() for condition in conditions])

    def factor_rows(self) -> dict[str, list[object]]:
        """Columns of `factors.parquet`: what is needed to compute all of this again."""
        parts = []
        for condition, answers in self.answers.items():
            known = {"key": answers.keys, "condition": [condition] * len(answers.keys)}
            known |= {"pair": self.scenes[condition].tolist(), "label": answers.labels.tolist()}
            parts.append(known | self.values[condition])
        return merged(parts)

    def _changes(self, encoder: str, condition: str) -> tuple[npt.NDArray[np.float64], Ints]:
        """Scene by scene from clean to shifted: the share of seeds that are right [n], and -1, 0 or 1 under the first one."""
        key, (clean, shifted) = self.key(encoder), self.pairs[condition]
        before, after = self.answers[CLEAN], self.answers[condition]
        change = after.correct(key)[shifted] - before.correct(key)[clean]
        return change, after.right(key)[shifted].astype(np.int64) - before.right(key)[clean]

    def _groups(self, condition: str) -> npt.NDArray[np.str_] | None:
        groups = self.answers[CLEAN].groups
        return None if groups is None else groups[self.pairs[condition].clean]

    def _effect(self, encoder: str, condition: str) -> ShiftEffect:
        change, first = self._changes(encoder, condition)
        found = statistics.bootstrap_mean(change, self._groups(condition))
        clean = 100 * self.answers[CLEAN].correct(self.key(encoder))[self.pairs[condition].clean].mean()
        p = statistics.mcnemar(int((first < 0).sum()), int((first > 0).sum()))
        return ShiftEffect(
            encoder=encoder, condition=condition, factor=factor_of(condition), clean=clean, shifted=clean + found.value,
            change=found.value, low=found.low, high=found.high, p=p, p_holm=p, n=len(change),
        )  # fmt: skip

    def _gap(self, a: str, b: str, condition: str) -> ShiftGap:
        (change_a, first_a), (change_b, first_b) = (self._changes(encoder, condition) for encoder in (a, b))
        found = statistics.bootstrap_mean(change_b - change_a, self._groups(condition))
        p = statistics.sign_flip(first_b - first_a)
        return ShiftGap(
            a=a, b=b, condition=condition, factor=factor_of(condition), difference=found.value, low=found.low, high=found.high,
            p=p, p_holm=p, n=len(change_a),
        )  # fmt: skip

    def _cut(self, condition: str, factor: str) -> list[Slice]:
        return [each for each in slices(factor, self.values[condition][factor]) if len(each.rows) >= LEAST]

    def _scored(self, encoder: str, cut: Mapping[str, Sequence[Slice]]) -> Iterator[SliceScore]:
        clean = [self._sliced(encoder, CLEAN, each) for each in cut[CLEAN]]
        parts = [score for score in clean if score.p is not None]
        adjusted = statistics.holm([score.p for score in parts if score.p is not None])
        yield from (score.model_copy(update={"p_holm": p}) for score, p in zip(parts, adjusted, strict=True))
        # Of a factor that never varies all pictures are one slice: where its shifts begin.
        shifted = {factor_of(condition) for condition in self.conditions}
        yield from (score for score in clean if score.p is None and score.factor in shifted)
        yield from (self._sliced(encoder, condition, each) for condition in self.conditions for each in cut[condition])

    def _sliced(self, encoder: str, condition: str, each: Slice) -> SliceScore:
        answers, key = self.answers[condition], self.key(encoder)
        correct, first = answers.correct(key), answers.right(key)
        groups = None if answers.groups is None else answers.groups[each.rows]
        known = self.values[condition][each.factor]
        strange = outside([known[row] for row in each.rows], self.training[each.factor])
        place = {"encoder": encoder, "condition": condition, "factor": each.factor, "span": list(each.span), "n": len(each.rows)}
        place |= {"outside": float(strange.mean())} | statistics.bootstrap_mean(correct[each.rows], groups)._asdict()
        if condition != CLEAN or len(each.rows) == len(correct):
            return SliceScore.model_validate(place)
        others = np.setdiff1d(np.arange(len(correct)), each.rows)
        gap = statistics.bootstrap_gap(correct[each.rows], correct[others])
        p = statistics.fisher(int(first[each.rows].sum()), len(each.rows), int(first[others].sum()), len(others))
        return SliceScore.model_validate(
            place | {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high, "p": p, "p_holm": p}
        )


def merged(parts: Sequence[Mapping[str, Sequence[object]]]) -> dict[str, list[object]]:
    """Columns one below the other; a table without columns has no rows."""
    filled = [part for part in parts if part]
    return {name: [value for part in filled for value in part[name]] for name in filled[0]} if filled else {}
