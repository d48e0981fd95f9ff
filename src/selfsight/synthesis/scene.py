"""A scene: a pure description of one synthetic picture. What draws it is a backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from selfsight.synthesis.distributions import Value


@dataclass(frozen=True)
class Thing:
    """Something in a scene. `name` is its class, None for what has no label: a distractor or an occluder."""

    name: str | None
    asset: str
    factors: Mapping[str, Value]
    seed: int

    def number(self, factor: str) -> float:
        return float(self.factors[factor])

    def word(self, factor: str) -> str:
        return str(self.factors[factor])


@dataclass(frozen=True)
class Scene:
    """One picture. `size` is width and height in pixels; `label` is None in sets where each object draws its own class.

    `things` are in the order of nearness: the first is nearest, where a backend has no depth of its own. With `occlusion` above
    0 that is an occluder. Things with a class are objects, numbered from 1 in this order in every label.
    """

    key: str
    split: str
    index: int
    size: tuple[int, int]
    label: str | None
    factors: Mapping[str, Value]
    things: tuple[Thing, ...]
    seed: int
    sequence: str | None = None
    """The one it is a picture of, and below which, from 0."""
    frame: int = 0

    def only(self, factors: Collection[str]) -> Scene:
        """The scene as who knows these factors alone would tell it."""
        things = tuple(replace(thing, factors=_only(thing.factors, factors)) for thing in self.things)
        return replace(self, factors=_only(self.factors, factors), things=things)

    @property
    def objects(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.name is not None)

    def number(self, factor: str) -> float:
        return float(self.factors[factor])

    def word(self, factor: str) -> str:
        return str(self.factors[factor])


def _only(values: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name in names}
