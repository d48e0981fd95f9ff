"""The k-NN probe that a training calls each epoch: quick, on a fixed part of its own images."""

from __future__ import annotations

import numpy as np
import torch

from selfsight import metrics
from selfsight.data.loader import read_picture
from selfsight.data.sources import BadImage, Source
from selfsight.data.views import ViewSettings
from selfsight.encoders.preprocess import Preprocess, plain_crop
from selfsight.models.backbones import Backbone
from selfsight.ssl.probing import Probe

BANK = 2000
QUERIES = 500
_K = 20


def make_probe(source: Source, views: ViewSettings, seed: int, device: torch.device) -> Probe:
    """A function of the teacher's backbone that gives `rankme` and, where the source has labels, `knn_top1` in percent.

    Up to 2,000 images are the bank and 500 others the queries, drawn once with the seed and kept decoded. This watches a
    training; a comparison uses images of its own.
    """
    prepare = Preprocess(views.global_size, views.mean, views.std, plain_crop(views.global_size))
    # An epoch that no training has; its order is kind to sources that are read in blocks.
    order = np.unique(source.draws(seed, -1, np.arange(min(len(source), BANK + QUERIES))).indices)
    order = np.random.default_rng(seed).permutation(order)
    queries = min(QUERIES, len(order) // 5)
    images, labels, held = [], [], []
    for index, place in sorted(zip(order.tolist(), range(len(order)), strict=True)):
        image = read_picture(source, index, views.read)
        if not isinstance(image, BadImage):
            images.append(prepare(image))
            labels.append(-1 if source.labels is None else int(source.labels[index]))
            held.append(place < queries)
    pixels, label, query = torch.stack(images), np.array(labels), np.array(held)

    def probe(backbone: Backbone) -> dict[str, float]:
        vectors = torch.cat([backbone(batch.to(device)).summary.float().cpu() for batch in torch.split(pixels, 128)]).numpy()
        out = {"rankme": round(metrics.rankme(vectors[~query]), 3)}
        if source.labels is not None and query.any():
            unit = metrics.normalize(vectors)
            scores = metrics.knn_scores(unit[~query], label[~query], unit[query], [_K], len(source.classes))[_K]
            out["knn_top1"] = round(metrics.top_k_accuracy(scores, label[query], 1), 3)
        return out

    return probe
