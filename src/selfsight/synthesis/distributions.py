"""How a factor is spread: distributions as a spec writes them.

::

    size: 0.4                                  one value
    texture: [dots, stripes]                   one of these, equally often
    texture: {choice: [dots, stripes], weights: [3, 1]}
    size: {uniform: [0.2, 0.5]}
    light: {loguniform: [0.5, 2]}              each doubling as likely as the next
    rotation: {normal: [0, 10]}                mean and deviation, cut at three deviations, or at `within: [low, high]`
    count: {integers: [1, 4]}                  both ends included

Each is drawn from one number between 0 and 1 by its inverse distribution function. So two scenes that share that number and
differ in the distribution alone are as alike as they can be.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import PlainSerializer, PlainValidator, ValidationError, model_validator

from selfsight.config import Settings
from selfsight.errors import nearest

Value: TypeAlias = bool | int | float | str
Range: TypeAlias = tuple[float, float]

_CUT = 3.0


class Spread(Settings, ABC):
    """A distribution of a factor."""

    discrete: ClassVar[bool] = False
    """Whether it takes single values only, all of which `span` lists."""

    @abstractmethod
    def draw(self, u: float) -> Value:
        """The value at the share `u`, 0 <= u < 1, of the distribution."""

    @abstractmethod
    def span(self) -> list[Value]:
        """[low, high], or all values where `discrete`."""

    @abstractmethod
    def text(self) -> str:
        """In words."""

    def shorthand(self) -> Any:
        """As a spec writes it."""
        return self.model_dump(exclude_none=True, mode="json")

    def _check_range(self, low: float, high: float) -> None:
        if not low <= high:
            raise ValueError(f"expected the lower end first, got {low:g} and {high:g}")


class Constant(Spread):
    """Always the same."""

    value: Value
    discrete: ClassVar[bool] = True

    def draw(self, u: float) -> Value:
        return self.value

    def span(self) -> list[Value]:
        return [self.value]

    def text(self) -> str:
        return f"always {shown(self.value)}"

    def shorthand(self) -> Any:
        return self.value


class Uniform(Spread):
    """Evenly from low to high."""

    uniform: Range

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        self._check_range(*self.uniform)
        return self

    def draw(self, u: float) -> Value:
        low, high = self.uniform
        return low + u * (high - low)

    def span(self) -> list[Value]:
        return [*self.uniform]

    def text(self) -> str:
        return "{:g} to {:g}".format(*self.uniform)


class LogUniform(Spread):
    """From low to high, above 0, each doubling as likely as the next."""

    loguniform: Range

    @model_validator(mode="after")
    def _ordered(self) -> LogUniform:
        self._check_range(*self.loguniform)
        if self.loguniform[0] <= 0:
            raise ValueError(f"expected ends above 0, got {self.loguniform[0]:g}")
        return self

    def draw(self, u: float) -> Value:
        low, high = self.loguniform
        return low * math.exp(u * math.log(high / low))

    def span(self) -> list[Value]:
        return [*self.loguniform]

    def text(self) -> str:
        return "{:g} to {:g}, evenly by doublings".format(*self.loguniform)


class Normal(Spread):
    """Bell-shaped, and cut: what lies outside of `within` is drawn as never."""

    normal: tuple[float, float]
    within: Range | None = None

    @model_validator(mode="after")
    def _possible(self) -> Normal:
        mean, deviation = self.normal
        if deviation <= 0:
            raise ValueError(f"expected [mean, deviation above 0], got {[mean, deviation]}")
        self._check_range(*self._ends())
        if self._shares()[1] - self._shares()[0] < 1e-9:
            raise ValueError(f"expected 'within' where the values are, around {mean:g}, got {list(self._ends())}")
        return self

    def _ends(self) -> Range:
        mean, deviation = self.normal
        return self.within or (mean - _CUT * deviation, mean + _CUT * deviation)

    def _shares(self) -> Range:
        bell, (low, high) = NormalDist(*self.normal), self._ends()
        return bell.cdf(low), bell.cdf(high)

    def draw(self, u: float) -> Value:
        (first, last), (low, high) = self._shares(), self._ends()
        share = min(max(first + u * (last - first), 1e-16), 1 - 1e-16)
        return min(max(NormalDist(*self.normal).inv_cdf(share), low), high)

    def span(self) -> list[Value]:
        return [*self._ends()]

    def text(self) -> str:
        return "around {:g} by {:g}, within {:g} to {:g}".format(*self.normal, *self._ends())


class Integers(Spread):
    """Whole numbers from low to high, both included."""

    integers: tuple[int, int]

    @model_validator(mode="after")
    def _ordered(self) -> Integers:
        self._check_range(*self.integers)
        return self

    def draw(self, u: float) -> Value:
        low, high = self.integers
        return low + int(u * (high - low + 1))

    def span(self) -> list[Value]:
        return [*self.integers]

    def text(self) -> str:
        return "{} to {}, whole numbers".format(*self.integers)


class Choice(Spread):
    """One of some values, equally often or by weight."""

    choice: tuple[Value, ...]
    weights: tuple[float, ...] | None = None
    discrete: ClassVar[bool] = True

    @model_validator(mode="after")
    def _possible(self) -> Choice:
        if not self.choice:
            raise ValueError("expected one value at least to choose from, got none")
        weights = self.weights
        if weights is not None and (len(weights) != len(self.choice) or min(weights) < 0 or sum(weights) <= 0):
            raise ValueError(f"expected a weight for each of the {len(self.choice)} values, none below 0, got {list(weights)}")
        return self

    def draw(self, u: float) -> Value:
        if self.weights is None:
            return self.choice[int(u * len(self.choice))]
        steps = list(accumulate(self.weights))
        return self.choice[bisect.bisect_right(steps, u * steps[-1])]

    def span(self) -> list[Value]:
        return [*self.choice]

    def text(self) -> str:
        values = ", ".join(shown(value) for value in self.choice[:6]) + (", ..." if len(self.choice) > 6 else "")
        return f"one of {len(self.choice)}: {values}" + (" (weighted)" if self.weights else "")

    def shorthand(self) -> Any:
        return list(self.choice) if self.weights is None else super().shorthand()


KINDS: dict[str, type[Spread]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "normal": Normal,
    "integers": Integers,
    "choice": Choice,
    "value": Constant,
}


def shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def spread(given: Any) -> Spread:
    """What a spec writes, as a distribution; `ValueError` where it is none."""
    if isinstance(given, Spread):
        return given
    if isinstance(given, Mapping):
        named = [kind for kind in KINDS if kind in given]
        if len(named) != 1:
            first = str(next(iter(given), ""))
            raise ValueError(f"expected one of {', '.join(KINDS)}. {nearest(first, KINDS) if not named else 'Got several.'}")
        return _built(KINDS[named[0]], given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return _built(Choice, {"choice": given})
    return _built(Constant, {"value": given})


def _built(kind: type[Spread], values: Mapping[str, Any]) -> Spread:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def leaves(there: Spread, here: Sequence[Spread]) -> bool:
    """Whether `there` takes a value that none of `here` can take."""
    ranges = [one.span() for one in here if not one.discrete]
    points = {value for one in here if one.discrete for value in one.span()}

    def known(value: Value) -> bool:
        return value in points or any(isinstance(value, (int, float)) and low <= value <= high for low, high in ranges)  # type: ignore[operator]

    return not all(known(value) for value in there.span()) or (not there.discrete and not ranges)


Distribution = Annotated[Spread, PlainValidator(spread), PlainSerializer(lambda given: given.shorthand())]
"""A field of a spec that holds a distribution."""
