"""Predictions of every encoder under every task, and the scores and paired differences that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight import statistics
from selfsight.results import Comparison, Score

CLEAN = "clean"
"""The condition of images that nothing was done to."""


class Key(NamedTuple):
    encoder: str
    task: str
    metric: str


@dataclass
class Outcomes:
    """`predicted[key][seed]` are class indices [m] for the test images of one condition, in the order of `labels` and `keys`."""

    keys: list[str]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_] | None
    predicted: dict[Key, dict[int, npt.NDArray[np.int64]]]
    condition: str = CLEAN

    def right(self, key: Key) -> npt.NDArray[np.bool_]:
        """Whether each image is right [m] under the first seed, of which the exact tests are."""
        return self.predicted[key][min(self.predicted[key])] == self.labels

    def correct(self, key: Key) -> npt.NDArray[np.float64]:
        """Share of seeds [m] under which each image is right."""
        rows = [p == self.labels for p in self.predicted[key].values()]
        share: npt.NDArray[np.float64] = np.mean(rows, axis=0, dtype=np.float64)
        return share

    def scores(self) -> list[Score]:
        """Every metric of every encoder and seed, and balanced accuracy beside the primary metric of `linear`."""
        out = []
        for key, by_seed in self.predicted.items():
            for seed, predicted in by_seed.items():
                correct = (predicted == self.labels).astype(np.float64)
                found = statistics.bootstrap_mean(correct, self.groups)
                out.append(self._score(key, key.metric, found, seed))
                if key.metric == "top1":
                    balanced = statistics.bootstrap_balanced(correct, self.labels, self.groups)
                    out.append(self._score(key, "balanced_accuracy", balanced, seed))
        return out

    def comparisons(self, declared: Sequence[tuple[str, str]], primary: Mapping[str, str]) -> list[Comparison]:
        """The declared family: pairs (a, b) in the `primary` metric of each task, with Holm's correction over all of them."""
        pairs = []
        for task, metric in primary.items():
            pairs += [self._pair(a, b, task, metric) for a, b in declared]
        adjusted = statistics.holm([pair.p for pair in pairs])
        return [pair.model_copy(update={"p_holm": p}) for pair, p in zip(pairs, adjusted, strict=True)]

    def rows(self) -> dict[str, list[object]]:
        """Columns of `per_image.parquet`."""
        out: dict[str, list[object]] = {
            name: [] for name in ("key", "encoder", "task", "condition", "metric", "seed", "label", "predicted")
        }
        for key, by_seed in self.predicted.items():
            for seed, predicted in by_seed.items():
                n = len(predicted)
                out["key"] += self.keys
                out["encoder"] += [key.encoder] * n
                out["task"] += [key.task] * n
                out["condition"] += [self.condition] * n
                out["metric"] += [key.metric] * n
                out["seed"] += [seed] * n
                out["label"] += self.labels.tolist()
                out["predicted"] += predicted.tolist()
        return out

    def _score(self, key: Key, metric: str, found: statistics.Interval, seed: int) -> Score:
        where = {"encoder": key.encoder, "task": key.task, "metric": metric, "n": len(self.labels), "seed": seed}
        where["condition"] = self.condition
        return Score.model_validate(where | found._asdict())

    def _pair(self, a: str, b: str, task: str, metric: str) -> Comparison:
        key_a, key_b = Key(a, task, metric), Key(b, task, metric)
        difference, low, high = statistics.bootstrap_mean(self.correct(key_b) - self.correct(key_a), self.groups)
        right_a, right_b = self.right(key_a), self.right(key_b)
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        p = statistics.mcnemar(only_a, only_b)
        return Comparison(
            a=a, b=b, task=task, condition=self.condition, metric=metric, difference=difference, low=low, high=high,
            p=p, p_holm=p, only_a=only_a, only_b=only_b, n=len(self.labels),
        )  # fmt: skip
