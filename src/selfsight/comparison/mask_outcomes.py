"""Values of every encoder and floor on every picture with masks, and the scores and paired differences that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight import statistics
from selfsight.attention.objects import FINDERS
from selfsight.evaluate.segmentation import CORLOC, HEADS, MASSES, MIOU, Value
from selfsight.results import FLOOR, MaskDifference, MaskScore


class Look(NamedTuple):
    encoder: str
    method: str
    metric: str


@dataclass
class MaskOutcomes:
    """`values[look]` are those of the pictures `keys`, in their order; `groups` names the group of each, or is None."""

    keys: list[str] = field(default_factory=list)
    groups: npt.NDArray[np.str_] | None = None
    values: dict[Look, list[float]] = field(default_factory=dict)

    def add(self, key: str, found: Mapping[str, Iterable[Value]]) -> None:
        """What each encoder and floor reached on one picture."""
        self.keys.append(key)
        for encoder, values in found.items():
            for method, metric, value in values:
                self.values.setdefault(Look(encoder, method, metric), []).append(value)

    def scores(self) -> list[MaskScore]:
        return [MaskScore(**look._asdict(), **self._interval(each), n=len(each)) for look, each in self.values.items()]

    def differences(self, pairs: Sequence[tuple[str, str]], own: Mapping[str, str]) -> list[MaskDifference]:
        """For each pair (a, b): their own maps, the best head where both have heads, and every way to find objects."""
        return [found for a, b in pairs for look, other in self._matched(a, b, own) if (found := self._difference(look, other))]

    def rows(self) -> dict[str, list[object]]:
        """Columns of `per_image_masks.parquet`."""
        out: dict[str, list[object]] = {name: [] for name in ("key", "encoder", "method", "metric", "value")}
        for look, values in self.values.items():
            for key, value in zip(self.keys, values, strict=True):
                for name, each in zip(out, (key, *look, value), strict=True):
                    out[name].append(each)
        return out

    def _matched(self, a: str, b: str, own: Mapping[str, str]) -> Iterator[tuple[Look, Look]]:
        """A floor is the same by every method."""
        methods = [(own.get(a, FLOOR), own.get(b, FLOOR), tuple(MASSES)), (HEADS, HEADS, tuple(MASSES))]
        methods += [(name, name, (CORLOC, MIOU)) for name in FINDERS]
        for method_a, method_b, metrics in methods:
            for metric in metrics:
                yield Look(a, method_a if a in own else FLOOR, metric), Look(b, method_b if b in own else FLOOR, metric)

    def _difference(self, a: Look, b: Look) -> MaskDifference | None:
        """None where one of the two has no such method."""
        if a not in self.values or b not in self.values:
            return None
        found = self._interval(np.array(self.values[b]) - np.array(self.values[a]))
        found["difference"] = found.pop("value")
        methods = {"method_a": a.method, "method_b": b.method, "metric": a.metric}
        return MaskDifference.model_validate({"a": a.encoder, "b": b.encoder, **methods, **found, "n": len(self.keys)})

    def _interval(self, values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
        return statistics.bootstrap_mean(np.asarray(values, dtype=np.float64), self.groups)._asdict()
