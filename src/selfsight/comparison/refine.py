"""Where an encoder fails more than elsewhere, as a comparison on a drawn set tells it; and what became of it in the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selfsight import statistics
from selfsight.comparison.outcomes import CLEAN
from selfsight.comparison.shift_folder import encoders_of, read_shift
from selfsight.comparison.shift_outcomes import ShiftOutcomes
from selfsight.comparison.shift_set import ShiftSet, numbers
from selfsight.errors import ConfigError, DataError, nearest
from selfsight.results import Results, ShiftSince

SURE = 0.05


class Failure(NamedTuple):
    """Pictures of `condition` with `factor` within `span` (empty: all of them), of which `value` percent of `n` are right: `gap`
    points from the other test pictures, or of a shift from the same scenes as they are, with its interval."""

    condition: str
    factor: str
    span: tuple[Any, ...]
    value: float
    n: int
    gap: float
    low: float
    high: float
    p_holm: float


class Weak(NamedTuple):
    """What was found of one encoder, beside which others, and where the set lies."""

    encoder: str
    encoders: list[str]
    data: str
    failures: list[Failure]


def failures(folder: Path | str, encoder: str | None = None) -> Weak:
    """Slices of the test pictures and shifts under which the encoder, by default the challenger, fails for certain.

    A slice or shift is one of them where its whole interval lies below zero and its p below 0.05, by Holm over all slices, or all
    shifts, of this encoder. Worst first.
    """
    found, outcomes = read_shift(folder)
    assert found.shift is not None
    chosen = _chosen(found, outcomes, encoder, folder)
    weak = [*_slices(outcomes, chosen), *_shifts(outcomes, chosen)]
    sure = [each for each in weak if each.high < 0 and each.p_holm < SURE]
    return Weak(chosen, [e.spec for e in found.encoders], found.shift.data, sorted(sure, key=lambda each: each.gap))


def _chosen(found: Results, outcomes: ShiftOutcomes, encoder: str | None, folder: Path | str) -> str:
    known = encoders_of(outcomes)
    wanted = encoder or (found.verdict.challenger if found.verdict is not None else known[0])
    if wanted not in known:
        raise ConfigError(f"--encoder {wanted!r}: is not among those of {folder}. {nearest(wanted, known)}")
    return wanted


def _slices(outcomes: ShiftOutcomes, encoder: str) -> Iterator[Failure]:
    for s in outcomes.slices([encoder]):
        if None not in (s.gap, s.gap_low, s.gap_high, s.p_holm):
            gap, low, high, p = (float(value) for value in (s.gap, s.gap_low, s.gap_high, s.p_holm) if value is not None)
            yield Failure(CLEAN, s.factor, tuple(s.span), s.value, s.n, gap, low, high, p)


def _shifts(outcomes: ShiftOutcomes, encoder: str) -> Iterator[Failure]:
    for e in outcomes.effects([encoder]):
        yield Failure(e.condition, e.factor, (), e.shifted, e.n, e.change, e.low, e.high, e.p_holm)


class Watched(NamedTuple):
    """Pictures whose change from one comparison to the next is asked for; without a `span` those of a whole condition. `change`
    says what was done about them."""

    condition: str
    factor: str
    span: tuple[Any, ...]
    change: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Watched:
        """Out of a manifest."""
        return cls(row["condition"], row["factor"], tuple(row["span"]), row["change"])


def check_before(before: Path | str, exam: ShiftSet, encoders: Sequence[str]) -> None:
    """`DataError` where an earlier comparison was of other pictures, which their factors tell, or of none of these encoders."""
    _, former = read_shift(before)
    known = encoders_of(former)
    if not set(known) & set(encoders):
        raise DataError(f"--before {before}: has none of these encoders, but {', '.join(known)}; expected one that is in both")
    for condition in (name for name in former.answers if name in exam.tests):
        rows = dict(zip(numbers(exam.tests[condition]), exam.tests[condition].rows, strict=True))
        for place, scene in enumerate(former.scenes[condition].tolist()):
            for factor, values in former.values[condition].items():
                if scene in rows and rows[scene].get(factor) != values[place]:
                    raise DataError(
                        f"--before {before}: its pictures of {condition} are others (number {scene} in '{factor}'); expected a "
                        "set of the same seed and count, from a spec that differs in 'training' alone"
                    )


def since(before: Path | str, after: ShiftOutcomes, encoders: Sequence[str], answered: Sequence[Watched]) -> list[ShiftSince]:
    """What became of the pictures that training answers, and of those of every condition; p by Holm over all of it."""
    _, former = read_shift(before)
    both = [encoder for encoder in encoders if encoder in encoders_of(former)]
    conditions = [condition for condition in after.answers if condition in former.answers]
    told = {each.condition for each in answered if not each.span}
    watched = [each for each in answered if each.condition in conditions]
    watched += [Watched(condition, "", (), "") for condition in conditions if condition not in told]
    found = [_since(former, after, encoder, each) for each in watched for encoder in both]
    adjusted = statistics.holm([each.p for each in found])
    return [each.model_copy(update={"p_holm": p}) for each, p in zip(found, adjusted, strict=True)]


def _since(former: ShiftOutcomes, after: ShiftOutcomes, encoder: str, each: Watched) -> ShiftSince:
    old, new = former.answers[each.condition], after.answers[each.condition]
    _, here, there = np.intersect1d(former.scenes[each.condition], after.scenes[each.condition], return_indices=True)
    if each.span:
        known = former.values[each.condition][each.factor]
        kept = [_within(known[i], each.span) for i in here]
        here, there = here[kept], there[kept]
    key = former.key(encoder)
    change = new.correct(key)[there] - old.correct(key)[here]
    first = new.right(key)[there].astype(np.int64) - old.right(key)[here]
    found = statistics.bootstrap_mean(change)
    p = statistics.mcnemar(int((first < 0).sum()), int((first > 0).sum()))
    value = float(100 * old.correct(key)[here].mean())
    return ShiftSince(
        encoder=encoder, condition=each.condition, factor=each.factor, span=list(each.span), change=each.change,
        before=value, after=value + found.value, difference=found.value, low=found.low, high=found.high, p=p, p_holm=p,
        n=len(here),
    )  # fmt: skip


def _within(value: Any, span: Sequence[Any]) -> bool:
    if value is None:
        return False
    return bool(span[0] <= value <= span[-1]) if len(span) == 2 else bool(value == span[0])
