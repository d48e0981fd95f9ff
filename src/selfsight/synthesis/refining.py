"""A spec whose training shows more of what an encoder fails on. All other splits stay: the exam is the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from selfsight.errors import ConfigError, nearest
from selfsight.synthesis.distributions import Constant, Integers, Mixture, Spread, Uniform
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.spec import OTHERS, TRAIN, Refinement, SynthSpec

MORE = 1 / 3
"""Share of training that goes to what a factor fails on, whatever the number of its failures; the rest is spread as before."""
_DIGITS = 4


class Answer(NamedTuple):
    """The new spec, what it answers and by which change, and what is left with its reason."""

    spec: SynthSpec
    answered: list[Refinement]
    left: list[str]


def refined(spec: SynthSpec, weak: Sequence[Refinement], where: str = "spec") -> Answer:
    """`spec` with `training` mixed for every weakness: a slice is sampled more, a shift that fails is covered.

    `ConfigError` for a shift that the spec does not have: then it is not the one that drew the set.
    """
    unknown = [each.condition for each in weak if each.condition.startswith("shift.") and each.condition not in spec.shifts()]
    if unknown:
        raise ConfigError(
            f"{where}: has no {unknown[0]}; expected the spec that drew the set. {nearest(unknown[0], spec.shifts())}"
        )
    answered, left = list[Refinement](), list[str]()
    for factor in dict.fromkeys(each.factor for each in weak):
        own = [each for each in weak if each.factor == factor]
        if factor == "asset" or factor not in FACTORS:
            left.append(f"{factor}: is no factor that a spec spreads; give the classes more assets like those that fail")
            continue
        found = [_pieces(spec, factor, each) for each in own]
        answered += [each for each, pieces in zip(own, found, strict=True) if pieces]
        spec = _mixed(spec, factor, found)
    told = [each.model_copy(update={"change": _change(spec, each, weak)}) for each in answered]
    return Answer(spec.model_copy(update={"refined": tuple(told)}), told, left)


def _holders(spec: SynthSpec, factor: str) -> list[str | None]:
    """Who spreads a factor: classes of their own, and the spec for all others (None)."""
    if FACTORS[factor].of == "picture":
        return [None]
    own = [name for name, given in spec.classes.items() if factor in given.factors or factor in given.training]
    return [*own, None] if len(own) < len(spec.classes) else [*own]


def _pieces(spec: SynthSpec, factor: str, weak: Refinement) -> dict[str | None, list[Spread]]:
    """What each holder is to draw more of; holders that have none of it are left out."""
    found = {holder: list(_piece(spec, factor, holder, weak)) for holder in _holders(spec, factor)}
    return {holder: pieces for holder, pieces in found.items() if pieces}


def _piece(spec: SynthSpec, factor: str, holder: str | None, weak: Refinement) -> Iterator[Spread]:
    if weak.condition in spec.shifts():
        _, there = spec.shifts()[weak.condition]
        yield from [spec.of(factor, other) for other in spec.classes if other != holder] if there == OTHERS else [there]
        return
    base = spec.of(factor, holder)
    if FACTORS[factor].kind == "name":
        # A folder in the spec stands for its files: only where a class has values of its own can one be told to be another's.
        if holder is None or weak.span[0] in base.span():
            yield Constant(value=weak.span[0])
        return
    ends = [float(end) for end in base.span()]
    low, high = max(float(weak.span[0]), min(ends)), min(float(weak.span[-1]), max(ends))
    if FACTORS[factor].kind == "whole":
        low, high = math.ceil(low), math.floor(high)
    if low > high:
        return
    if FACTORS[factor].kind == "whole":
        yield Integers(integers=(int(low), int(high)))
    else:
        short = [min(max(float(f"{end:.{_DIGITS}g}"), min(ends)), max(ends)) for end in (low, high)]
        yield Uniform(uniform=(short[0], short[1])) if low < high else Constant(value=low)


def _mixed(spec: SynthSpec, factor: str, found: Sequence[dict[str | None, list[Spread]]]) -> SynthSpec:
    for holder in _holders(spec, factor):
        pieces = [piece for each in found for piece in each.get(holder, [])]
        pieces = [piece for number, piece in enumerate(pieces) if piece not in pieces[:number]]
        if not pieces:
            continue
        weight = len(pieces) * (1 - MORE) / MORE
        mixture = Mixture(mixture=(spec.of(factor, holder, TRAIN), *pieces), weights=(round(weight, 6), *[1.0] * len(pieces)))
        if holder is None:
            spec = spec.model_copy(update={"training": {**spec.training, factor: mixture}})
        else:
            given = spec.classes[holder]
            changed = given.model_copy(update={"training": {**given.training, factor: mixture}})
            spec = spec.model_copy(update={"classes": {**spec.classes, holder: changed}})
    return spec


def _change(spec: SynthSpec, weak: Refinement, all_weak: Sequence[Refinement]) -> str:
    """In words, as a share of training."""
    share = MORE / sum(each.factor == weak.factor for each in all_weak)
    if weak.condition in spec.shifts():
        _, there = spec.shifts()[weak.condition]
        what = "of the other classes" if there == OTHERS else there.text()
    else:
        what = _told(weak.span)
    return f"{share:.0%} of training with {weak.factor} {what}"


def _told(span: Sequence[Any]) -> str:
    return " to ".join(f"{end:.3g}" if isinstance(end, int | float) else str(end) for end in span)
