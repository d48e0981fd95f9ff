"""What a user writes: classes, their assets, and how each factor is spread in training and where it leaves that range.

::

    name: parts on a bench
    size: 128                                   # pixels, or [width, height]
    classes:
      bolt: {assets: cutouts/bolt}              # a folder, files, or built-in ones
      nut: {assets: [shape/hexagon], factors: {hue: 40}}
    factors:
      size: {uniform: [0.3, 0.6]}
      background: photos
    shift:                                      # a split each, in which this factor alone is another
      size: {uniform: [0.1, 0.2]}
      light: {dark: 0.3, glaring: 3}
    training:                                   # spread so in `train` alone; all other splits stay as they are
      size: {mixture: [{uniform: [0.3, 0.6]}, {uniform: [0.1, 0.2]}]}

    sequence: {frames: 12, motion: {x: 0.02}}   # pictures that follow one another, and how a factor grows from each to the next

Files are relative to the spec. `selfsight.synthesis.factors` lists the factors, `selfsight.synthesis.distributions` the ways to
spread them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from selfsight.config import Settings
from selfsight.synthesis.distributions import KINDS, Distribution, Spread, Value, spread
from selfsight.synthesis.factors import FACTORS

OTHERS = "others"
"""A shift that gives an object what the other classes have."""
TRAIN = "train"
PAIRED = "test"
"""The split whose scenes those of a shift are but for one factor."""


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _levels(given: Any) -> Any:
    """One distribution, or several by name, as levels by name ('' for a single one)."""
    several = isinstance(given, Mapping) and given and not set(given) & set(KINDS)
    levels = given if several else {"": given}
    return {str(name): value if value == OTHERS else spread(value) for name, value in levels.items()}


def _square(given: Any) -> Any:
    return (given, given) if isinstance(given, int) else given


Levels = Annotated[dict[str, Any], BeforeValidator(_levels)]


class ClassSpec(Settings):
    """A class of labelled objects: what draws them, and factors that are spread in a way of its own, or so in `train` alone."""

    assets: Names
    factors: dict[str, Distribution] = Field({})
    training: dict[str, Distribution] = Field({})

    @field_validator("assets")
    @classmethod
    def _some(cls, assets: tuple[str, ...]) -> tuple[str, ...]:
        if not assets:
            raise ValueError("expected one asset at least")
        return assets


Sizes: TypeAlias = Literal["picture", "world"]


class RenderSettings(Settings):
    """How a backend of three dimensions builds and renders them."""

    samples: int = Field(16, ge=1, le=65536, description="rays a pixel")
    denoise: bool = True
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto takes a GPU where there is one")
    sizes: Sizes = Field(
        "picture", description="what `size` is: as large as in the usual camera's picture, or metres in the world"
    )


class SequenceSettings(Settings):
    """Pictures that follow one another: a scene is drawn once for each `frames` of them, and `motion` says by how much a factor
    grows from one to the next, drawn once for each sequence and object."""

    frames: int = Field(ge=2, le=100_000, description="pictures of a sequence")
    motion: dict[str, Distribution] = Field({})


class Refinement(Settings):
    """What a comparison found weak, and how `training` answers it: `encoder` got `value` percent of the `n` pictures of
    `condition` whose `factor` lies within `span`, [low, high] or one value (empty for all of them)."""

    encoder: str
    condition: str
    factor: str
    span: tuple[Any, ...] = ()
    value: float
    n: int
    change: str


class SynthSpec(Settings):
    """A set of pictures. `mixed` lets each object draw its own class, so that a picture has no label of its own."""

    name: str
    size: Annotated[tuple[int, int], BeforeValidator(_square)] = (128, 128)
    backend: str = "composite"
    render: RenderSettings = RenderSettings()
    sequence: SequenceSettings | None = None
    classes: dict[str, ClassSpec]
    mixed: bool = False
    distractors: Names = ()
    factors: dict[str, Distribution] = Field({})
    training: dict[str, Distribution] = Field({}, description="factors that are spread otherwise in train than elsewhere")
    refined: tuple[Refinement, ...] = Field((), description="what 'selfsight refine' answered by `training`")
    splits: dict[str, float] = Field({"train": 1.0, "test": 0.25}, description="pictures of a split for each one asked for")
    shift: dict[str, Levels] = Field({})
    shift_assets: dict[str, dict[str, Names]] = Field({}, description="splits with other assets: name, then assets of each class")

    @model_validator(mode="after")
    def _possible(self) -> SynthSpec:
        if not self.classes:
            raise ValueError("expected one class at least in 'classes'")
        if not all(8 <= side <= 8192 for side in self.size):
            raise ValueError(f"size: expected 8 to 8192 pixels a side, got {list(self.size)}")
        if self.shifts() and PAIRED not in self.splits:
            raise ValueError(f"splits: expected '{PAIRED}', of which the scenes of a shift are copies but for one factor")
        if not self.splits or min(self.splits.values()) <= 0:
            raise ValueError(f"splits: expected shares above 0, such as train: 1.0, got {self.splits}")
        for name in self.classes:
            if not name.strip(". ") or set(name) & set('/\\:*?"<>|') or not name.isprintable():
                raise ValueError(f"classes: expected names that can be folders, got {name!r}")
        levels = [level for there in self.shift.values() for level in there if level]
        for split in [*self.splits, *levels, *self.shift_assets]:
            if not split.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"splits and shifts: expected a name of letters, digits, - and _, got '{split}'")
        return self

    @property
    def frames(self) -> int:
        """Pictures of a scene."""
        return self.sequence.frames if self.sequence else 1

    @property
    def motion(self) -> dict[str, Spread]:
        """By how much a factor grows from one picture of a sequence to the next; empty where there are none."""
        return self.sequence.motion if self.sequence else {}

    def of(self, factor: str, name: str | None, split: str = PAIRED) -> Spread:
        """How a factor is spread in a split for objects of class `name`, None for the picture and things of no class."""
        own = self.classes[name] if name is not None else None
        nearest = [own.training, own.factors, self.training, self.factors] if own else [self.training, self.factors]
        if split != TRAIN:
            nearest = [own.factors, self.factors] if own else [self.factors]
        return next((given[factor] for given in nearest if factor in given), FACTORS[factor].usual)

    def ways(self, factor: str, split: str = PAIRED) -> list[Spread]:
        """How a factor is spread in a split, once for each way that there is."""
        names = list(self.classes) if FACTORS[factor].of == "object" else [None]
        found = [self.of(factor, name, split) for name in names]
        return [way for number, way in enumerate(found) if way not in found[:number]]

    def in_training(self, factor: str) -> list[Spread]:
        return self.ways(factor, TRAIN)

    def shifts(self) -> dict[str, tuple[str, Any]]:
        """Split names, and the factor and distribution (or `others`, or assets by class) of each."""
        named = {
            ".".join(["shift", factor, *([level] if level else [])]): (factor, there)
            for factor, levels in self.shift.items()
            for level, there in levels.items()
        }
        return named | {f"shift.asset.{name}": ("asset", assets) for name, assets in self.shift_assets.items()}

    def all_assets(self) -> Iterator[str]:
        """Every asset, in training and elsewhere."""
        yield from self.distractors
        yield from self.labelled_assets()

    def labelled_assets(self) -> Iterator[str]:
        """Every asset of a class, in training and elsewhere."""
        for given in self.classes.values():
            yield from given.assets
        for by_class in self.shift_assets.values():
            for assets in by_class.values():
                yield from assets

    def values(self, factor: str) -> Iterator[Value]:
        """The spans of a factor, in training and elsewhere."""
        for way in [
            *self.ways(factor),
            *self.in_training(factor),
            *(there for of, there in self.shifts().values() if of == factor),
        ]:
            if isinstance(way, Spread):
                yield from way.span()

    def names(self, factor: str) -> Iterator[str]:
        """Every value of a factor of names, in training and elsewhere."""
        yield from map(str, self.values(factor))

    def named(self) -> list[str]:
        """Every asset and every value of a factor of names: what may be a file."""
        factors = (factor for factor, known in FACTORS.items() if known.kind == "name")
        return sorted({*self.all_assets(), *(name for factor in factors for name in self.names(factor))})

    def varied(self) -> dict[str, list[Any]]:
        """Factors that are not always the same in training, with their range there, [low, high] or values."""
        found: dict[str, list[Any]] = {}
        for factor in FACTORS:
            if factor == "asset":
                continue
            ways = self.in_training(factor)
            values = [value for way in ways for value in way.span()]
            if factor in self.motion:
                values += self._moved(factor, values)
            if len(set(values)) > 1:
                numbers = factor in self.motion or not all(way.discrete for way in ways)
                found[factor] = [min(values), max(values)] if numbers else list(dict.fromkeys(values))
        return found

    def _moved(self, factor: str, values: list[Any]) -> list[float]:
        """Where values may be in the last picture of a sequence."""
        steps = [(self.frames - 1) * step for step in self.motion[factor].span()]
        return [FACTORS[factor].within(value + step) for value in (min(values), max(values)) for step in steps]


def dumped(spec: SynthSpec) -> dict[str, Any]:
    """The spec as plain values, which `build` reads back."""
    values = spec.model_dump(mode="json", exclude={"shift"})
    # What is not there leaves no trace, so that sets stay the same sets under versions that know more.
    if spec.render == RenderSettings():
        del values["render"]
    elif spec.render.sizes == "picture":
        del values["render"]["sizes"]
    if spec.sequence is None:
        del values["sequence"]
    else:
        values["sequence"]["motion"] = {factor: way.shorthand() for factor, way in spec.motion.items()}
    for place in (values, *values["classes"].values()):
        for name in ("training", "refined"):
            if not place.get(name, True):
                del place[name]
    values["shift"] = {
        factor: levels[""] if list(levels) == [""] else levels
        for factor, levels in (
            (factor, {level: there if there == OTHERS else there.shorthand() for level, there in levels.items()})
            for factor, levels in spec.shift.items()
        )
    }
    return values


def written(spec: SynthSpec) -> str:
    """The spec as YAML."""
    return yaml.safe_dump(dumped(spec), sort_keys=False, allow_unicode=True, default_flow_style=None)


def described(spec: SynthSpec) -> Iterator[tuple[str, str, str]]:
    """(factor, how it is spread in training, where else) of every factor that a spec names or that varies; for `--dry-run`."""
    shifts = spec.shifts()
    own = [factor for given in spec.classes.values() for factor in [*given.factors, *given.training]]
    named = {*spec.factors, *spec.training, *own, *spec.shift, *spec.varied()}
    for factor in FACTORS:
        if factor in named:
            here, tested = ("; ".join(way.text() for way in ways) for ways in (spec.in_training(factor), spec.ways(factor)))
            there = [f"{PAIRED}: {tested}"] if tested != here else []
            for split, (shifted, way) in shifts.items():
                if shifted == factor:
                    there.append(f"{split}: {way if way == OTHERS else way.text()}")
            yield factor, here, "; ".join(there)
    for factor, step in spec.motion.items():
        yield f"{factor}, a picture", step.text(), ""
