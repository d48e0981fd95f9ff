"""(spec, seed, split, number) to a pure scene.

Every factor is drawn from a number of its own, which depends on the seed, the split, the number of the picture, that of the
object and the name of the factor, and on nothing else: neither on workers nor on what was drawn before. A split `shift.FACTOR`
draws from the numbers of `test`. So its picture number 7 is that of `test` number 7 with one factor changed, and the two are a
pair.

In a sequence this holds for scenes: its pictures are of one scene, in which what moves has moved a step further in each.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from selfsight.synthesis.distributions import Choice, Spread, Value
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.scene import Scene, Thing
from selfsight.synthesis.spec import OTHERS, PAIRED, SynthSpec

_OF = {kind: [name for name, factor in FACTORS.items() if factor.of == kind] for kind in ("picture", "object")}


def sample(spec: SynthSpec, seed: int, split: str, index: int) -> Scene:
    """The scene number `index` of a split."""
    return _Sampler(spec, seed, split, index).scene()


class _Sampler:
    def __init__(self, spec: SynthSpec, seed: int, split: str, index: int) -> None:
        self.spec, self.split, self.index = spec, split, index
        self.shifted, self.there = spec.shifts().get(split, ("", None))
        self.turn, self.moment = divmod(index, spec.frames)
        self.stream = f"{seed}/{PAIRED if self.shifted else split}/{self.turn}"
        self.classes = list(spec.classes)
        self.main = self.classes[self.turn % len(self.classes)]

    def scene(self) -> Scene:
        factors = {name: self._drawn(name, None, "") for name in _OF["picture"]}
        objects = [self._object(number) for number in range(int(factors["count"]))]
        distractors = [self._distractor(number) for number in range(int(factors["distractors"]))]
        occluders = [self._occluder(objects[0], float(factors["occlusion"]))] if factors["occlusion"] and objects else []
        return Scene(
            key=f"{self.split}/{self.index:06d}",
            split=self.split,
            index=self.index,
            size=self.spec.size,
            label=None if self.spec.mixed else self.main,
            factors=factors,
            things=(*occluders, *objects, *distractors),
            seed=self._seed("scene"),
            sequence=f"{self.turn:06d}" if self.spec.sequence else None,
            frame=self.moment,
        )

    def _object(self, number: int) -> Thing:
        """The first object is of the class whose turn it is, so that every set is balanced."""
        name = self.main
        if self.spec.mixed and number:
            name = self.classes[int(self._u(f"{number}/class") * len(self.classes))]
        assets: Sequence[str] = self.spec.classes[name].assets
        if self.shifted == "asset":
            assets = self.there[name]
        return self._thing(name, assets, str(number))

    def _distractor(self, number: int) -> Thing:
        return self._thing(None, self.spec.distractors, f"distractor {number}")

    def _occluder(self, hidden: Thing, share: float) -> Thing:
        """A thing of the same size before the object, so far off that two discs would overlap by `share`."""
        thing = self._thing(None, self.spec.distractors, "occluder")
        away, angle = offset(share) * hidden.number("size"), 2 * math.pi * self._u("occluder/side")
        width, height = self.spec.size
        short = min(width, height)
        place = {
            "size": hidden.factors["size"],
            "x": hidden.number("x") + away * math.cos(angle) * short / width,
            "y": hidden.number("y") + away * math.sin(angle) * short / height,
        }
        return Thing(None, thing.asset, {**thing.factors, **place}, thing.seed)

    def _thing(self, name: str | None, assets: Sequence[str], who: str) -> Thing:
        asset = assets[int(self._u(f"{who}/asset") * len(assets))]
        factors: dict[str, Value] = {factor: self._drawn(factor, name, who) for factor in _OF["object"] if factor != "asset"}
        return Thing(name, asset, factors, self._seed(who))

    def _drawn(self, factor: str, name: str | None, who: str) -> Value:
        shifted = factor == self.shifted and (FACTORS[factor].of == "picture" or name is not None)
        way = self._shift(factor, name) if shifted else self.spec.of(factor, name, self.split)
        value = FACTORS[factor].cast(way.draw(self._u(f"{who}/{factor}")))
        if factor not in self.spec.motion:
            return value
        step = self.spec.motion[factor].draw(self._u(f"{who}/motion/{factor}"))
        return FACTORS[factor].within(float(value) + self.moment * float(step))

    def _shift(self, factor: str, name: str | None) -> Spread:
        if self.there != OTHERS:
            assert isinstance(self.there, Spread)
            return self.there
        own = set(self.spec.of(factor, name).span())
        values = [v for other in self.classes for v in self.spec.of(factor, other).span() if v not in own]
        return Choice(choice=tuple(dict.fromkeys(values)))

    def _u(self, what: str) -> float:
        """A number in [0, 1) that belongs to `what` of this picture alone."""
        return self._bits(what) / 2**64

    def _seed(self, what: str) -> int:
        return self._bits(f"{what}/seed") >> 33

    def _bits(self, what: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.stream}/{what}".encode(), digest_size=8).digest(), "big")


def offset(share: float) -> float:
    """How far apart, in diameters, the centres of two like discs are of which one hides `share` of the other.

    The overlap of two discs of diameter 1 at distance d is (2 / pi) (acos d - d sqrt(1 - d^2)) of one; solved by halving.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        overlap = 2 / math.pi * (math.acos(middle) - middle * math.sqrt(1 - middle * middle))
        low, high = (middle, high) if overlap > share else (low, middle)
    return (low + high) / 2


def pair(spec: SynthSpec, split: str) -> str | None:
    """The split of which `split` is a copy but for one factor."""
    return PAIRED if split in spec.shifts() else None


def counts(spec: SynthSpec, count: int) -> Mapping[str, int]:
    """Pictures of each split where `count` are asked for; whole sequences, one at least, and a shift has as many as its pair."""
    number = {split: spec.frames * max(1, math.ceil(round(count * share) / spec.frames)) for split, share in spec.splits.items()}
    return number | dict.fromkeys(spec.shifts(), number.get(PAIRED, 0))
