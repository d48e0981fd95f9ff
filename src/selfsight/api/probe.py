"""The k-NN probe that a training calls each epoch: quick, on a fixed part of its own images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from selfsight import metrics, neighbours
from selfsight.data.loader import read_picture
from selfsight.data.sources import BadImage, Source
from selfsight.data.views import ViewSettings
from selfsight.encoders.preprocess import Preprocess, plain_crop
from selfsight.ssl.probing import Embed, Probe
from selfsight.ssl.world import BY_ITSELF, World

BANK = 2000
QUERIES = 500
_K = 20
_BATCH = 128


def make_probe(source: Source, views: ViewSettings, seed: int, device: torch.device, world: World = BY_ITSELF) -> Probe:
    """A function of the teacher's summaries that gives `rankme` and, where the source has labels, `knn_top1` in percent; nothing
    where the features are not finite.

    Up to 2,000 images are the bank and 500 others the queries, drawn once with the seed and kept decoded; of several ranks
    each reads and embeds its part of them. This watches a training; a comparison uses images of its own.
    """
    prepare = Preprocess(views.global_size, views.mean, views.std, plain_crop(views.global_size))
    # An epoch that no training has; its order is kind to sources that are read in blocks.
    order = np.unique(source.draws(seed, -1, np.arange(min(len(source), BANK + QUERIES))).indices)
    order = np.random.default_rng(seed).permutation(order)
    queries = min(QUERIES, len(order) // 5)
    images, labels, held = [], [], []
    chosen = sorted(zip(order.tolist(), range(len(order)), strict=True))
    for index, place in chosen[len(order) * world.rank // world.count : len(order) * (world.rank + 1) // world.count]:
        image = read_picture(source, index, views.read)
        if not isinstance(image, BadImage):
            images.append(prepare(image))
            labels.append(-1 if source.labels is None else int(source.labels[index]))
            held.append(place < queries)
    everywhere = world.collect((labels, held))
    label = np.array([each for part, _ in everywhere for each in part])
    query = np.array([each for _, part in everywhere for each in part])
    classes = 0 if source.labels is None else len(source.classes)
    batches = -(-max(len(part) for part, _ in everywhere) // _BATCH)
    # A rank without images takes part all the same: a network whose parts lie on all ranks is run by all together.
    pixels = torch.stack(images or [torch.zeros(views.read.channels, views.global_size, views.global_size)])

    def probe(embed: Embed) -> dict[str, float]:
        parts = [pixels[start : start + _BATCH] for start in range(0, _BATCH * batches, _BATCH)]
        vectors = torch.cat([embed((part if len(part) else pixels[:1]).to(device)).float().cpu() for part in parts])
        every = np.concatenate(world.collect(vectors[: len(images)].numpy()))
        return world.first(lambda: score(every, label, query, classes))

    return probe


def score(vectors: metrics.Floats, label: metrics.Ints, query: npt.NDArray[np.bool_], classes: int) -> dict[str, float]:
    """What vectors [N, D] are worth, those of the `query` [N] bool against all others."""
    if not np.isfinite(vectors).all():
        return {}  # weights that overflowed; the training notices at its next step
    out = {"rankme": round(metrics.rankme(vectors[~query]), 3)}
    if classes and query.any():
        unit = metrics.normalize(vectors)
        scores = neighbours.knn_scores(unit[~query], label[~query], unit[query], [_K], classes)[_K]
        out["knn_top1"] = round(metrics.top_k_accuracy(scores, label[query], 1), 3)
    return out
