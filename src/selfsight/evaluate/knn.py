"""k nearest neighbours, as DINO reports it: cosine similarity, votes weighted by exp(similarity / 0.07)."""

from __future__ import annotations

from collections.abc import Iterator

from selfsight import metrics, neighbours
from selfsight.evaluate.base import FeatureSet, Predictions, Task

KS = (1, 5, 20)


class KNN(Task):
    """No training and nothing to tune, so it shows the features as they are."""

    primary = "top1_k20"
    random = False

    def run(self, features: FeatureSet, *, seed: int, device: str) -> Iterator[Predictions]:
        train, test = metrics.normalize(features.train), metrics.normalize(features.test)
        scores = neighbours.knn_scores(train, features.train_labels, test, KS, features.classes)
        for k in KS:
            yield Predictions(f"top1_k{k}", scores[k].argmax(1))
