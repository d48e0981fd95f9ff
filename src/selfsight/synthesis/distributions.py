"""How a factor is spread: distributions as a spec writes them.

::

    size: 0.4                                  one value
    texture: [dots, stripes]                   one of these, equally often
    texture: {choice: [dots, stripes], weights: [3, 1]}
    size: {uniform: [0.2, 0.5]}
    light: {loguniform: [0.5, 2]}              each doubling as likely as the next
    rotation: {normal: [0, 10]}                mean and deviation, cut at three deviations, or at `within: [low, high]`
    count: {integers: [1, 4]}                  both ends included
    size: {mixture: [{uniform: [0.3, 0.6]}, {uniform: [0.1, 0.2]}], weights: [2, 1]}     one of several distributions

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
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, ValidationError, model_validator

from selfsight.config import Settings
from selfsight.errors import nearest

Value: TypeAlias = bool | int | float | str
Range: TypeAlias = tuple[float, float]

_CUT = 3.0


class Spread(Settings, ABC):
    """A distribution of a factor."""

    @property
    def discrete(self) -> bool:
        """Whether it takes single values only, all of which `span` lists."""
        return False

    @abstractmethod
    def draw(self, u: float) -> Value:
        """The value at the share `u`, 0 <= u < 1, of the distribution."""

    @abstractmethod
    def span(self) -> list[Value]:
        """[low, high], or all values where `discrete`."""

    @abstractmethod
    def text(self) -> str:
        """In words."""

    def below(self, value: float) -> float:
        """The share of what is drawn that is not above `value`; of numbers."""
        return sum(share for one, share in (self.atoms() or {}).items() if float(one) <= value)

    def atoms(self) -> dict[Value, float] | None:
        """Each value with its share; None where it takes all values between two."""
        return None

    def parts(self) -> list[Spread]:
        """The distributions that it is made of; itself, where it is of one piece."""
        return [self]

    def shorthand(self) -> Any:
        """As a spec writes it."""
        return self.model_dump(exclude_none=True, mode="json")

    def _check_range(self, low: float, high: float) -> None:
        if not low <= high:
            raise ValueError(f"expected the lower end first, got {low:g} and {high:g}")


class Constant(Spread):
    """Always the same."""

    value: Value

    @property
    def discrete(self) -> bool:
        return True

    def atoms(self) -> dict[Value, float]:
        return {self.value: 1.0}

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

    def below(self, value: float) -> float:
        low, high = self.uniform
        return float(value >= low) if low == high else min(max((value - low) / (high - low), 0.0), 1.0)

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

    def below(self, value: float) -> float:
        low, high = self.loguniform
        if low == high:
            return float(value >= low)
        return min(max(math.log(max(value, low) / low) / math.log(high / low), 0.0), 1.0)

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

    def below(self, value: float) -> float:
        first, last = self._shares()
        return min(max((NormalDist(*self.normal).cdf(value) - first) / (last - first), 0.0), 1.0)

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

    def atoms(self) -> dict[Value, float]:
        low, high = self.integers
        return dict.fromkeys(range(low, high + 1), 1 / (high - low + 1))

    def span(self) -> list[Value]:
        return [*self.integers]

    def text(self) -> str:
        return "{} to {}, whole numbers".format(*self.integers)


class Choice(Spread):
    """One of some values, equally often or by weight."""

    choice: tuple[Value, ...]
    weights: tuple[float, ...] | None = None

    @property
    def discrete(self) -> bool:
        return True

    def atoms(self) -> dict[Value, float]:
        found: dict[Value, float] = {}
        weights = self.weights or (1.0,) * len(self.choice)
        for value, weight in zip(self.choice, weights, strict=True):
            found[value] = found.get(value, 0.0) + weight / sum(weights)
        return found

    @model_validator(mode="after")
    def _possible(self) -> Choice:
        if not self.choice:
            raise ValueError("expected one value at least to choose from, got none")
        _check_weights(self.weights, len(self.choice), "values")
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


def _check_weights(weights: Sequence[float] | None, count: int, what: str) -> None:
    if weights is not None and (len(weights) != count or min(weights) < 0 or sum(weights) <= 0):
        raise ValueError(f"expected a weight for each of the {count} {what}, none below 0, got {list(weights)}")


Distribution = Annotated[Spread, PlainValidator(lambda given: spread(given)), PlainSerializer(lambda given: given.shorthand())]
"""A field of a spec that holds a distribution."""
_HALVINGS = 60


class Mixture(Spread):
    """One of several distributions, equally often or by weight; all of numbers, or all of names.

    Drawn by the inverse of the distribution function of the whole, F = sum of the weighted F of its parts, which is found by
    halving. So a picture whose share `u` falls where F has hardly changed keeps nearly the value that it had without the mixture.
    """

    mixture: tuple[Distribution, ...]
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Mixture:
        if not self.mixture:
            raise ValueError("expected one distribution at least to mix, got none")
        _check_weights(self.weights, len(self.mixture), "distributions")
        if len({isinstance(value, str) for part in self.mixture for value in part.span()}) > 1:
            raise ValueError("expected distributions of numbers or of names, got both in one mixture")
        return self

    @property
    def discrete(self) -> bool:
        return all(part.discrete for part in self.mixture)

    @property
    def _weighted(self) -> list[tuple[Spread, float]]:
        weights = self.weights or (1.0,) * len(self.mixture)
        return [(part, weight / sum(weights)) for part, weight in zip(self.mixture, weights, strict=True)]

    def atoms(self) -> dict[Value, float] | None:
        found: dict[Value, float] = {}
        for part, weight in self._weighted:
            own = part.atoms()
            if own is None:
                return None
            for value, share in own.items():
                found[value] = found.get(value, 0.0) + weight * share
        names = any(isinstance(value, str) for value in found)
        return found if names else dict(sorted(found.items(), key=lambda pair: float(pair[0])))

    def below(self, value: float) -> float:
        return sum(weight * part.below(value) for part, weight in self._weighted)

    def parts(self) -> list[Spread]:
        return [piece for part in self.mixture for piece in part.parts()]

    def draw(self, u: float) -> Value:
        atoms = self.atoms()
        if atoms is not None:
            steps = list(accumulate(atoms.values()))
            return list(atoms)[min(bisect.bisect_right(steps, u * steps[-1]), len(steps) - 1)]
        ends = [float(end) for piece in self.parts() for end in piece.span()]
        low, high = min(ends), max(ends)
        apart = high - low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.below(middle) > u else (middle, high)
        single = [value for piece in self.parts() for value in piece.atoms() or ()]
        return next((value for value in single if abs(float(value) - high) <= 1e-12 * apart), high)

    def span(self) -> list[Value]:
        values = [value for part in self.mixture for value in part.span()]
        if self.discrete:
            return list(dict.fromkeys(values))
        return [min(values, key=float), max(values, key=float)]

    def text(self) -> str:
        return " and ".join(f"{weight:.0%} {part.text()}" for part, weight in self._weighted)


KINDS: dict[str, type[Spread]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "normal": Normal,
    "integers": Integers,
    "choice": Choice,
    "mixture": Mixture,
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
    known_parts = [piece for one in here for piece in one.parts()]
    ranges = [one.span() for one in known_parts if not one.discrete]
    points = {value for one in known_parts if one.discrete for value in one.span()}

    def known(value: Value) -> bool:
        return value in points or any(isinstance(value, (int, float)) and low <= value <= high for low, high in ranges)  # type: ignore[operator]

    def leaving(piece: Spread) -> bool:
        return not all(known(value) for value in piece.span()) or (not piece.discrete and not ranges)

    return any(leaving(piece) for piece in there.parts())
