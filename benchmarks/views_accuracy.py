"""Claim: views coloured by one map cost no accuracy against torchvision's own operations, one after another.

    python benchmarks/views_accuracy.py CIFAR10 [--images 10000] [--test 2000] [--steps 1500] [--seeds 3]

CIFAR10 is a folder with train.parquet and test.parquet. For each seed the same network is trained twice with the same recipe, on
the same images in the same order and with the same drawn numbers: with `finish_views`, and with the published chain made of
Pillow and torchvision (crop resized with Pillow bicubic, flip, colour jitter in the drawn order on whole levels, hue in HSV,
grey, blur, solarise), which the same boxes and draws drive. What is left between the two is what our operations do differently:
no clamping and rounding between the steps, hue turned in the YIQ plane, resizing within one level of Pillow's.

20-NN accuracy of the teachers on test images; the interval of the difference is a bootstrap over the test images, which keeps the
seeds of an image together. The limit is the untrained network.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

import selfsight
from selfsight import metrics, neighbours, statistics
from selfsight.data import loader
from selfsight.data.multicrop import Plan, Views
from selfsight.data.opening import OpenedImage
from selfsight.data.sources import Source, first, open_source
from selfsight.data.views import Photometry, ViewSettings
from selfsight.encoders.features import extract

_STEPS: tuple[Callable[[Image.Image, Photometry, int], Image.Image], ...] = (
    lambda image, draws, row: tv.adjust_brightness(image, draws.brightness[row]),
    lambda image, draws, row: tv.adjust_contrast(image, draws.contrast[row]),
    lambda image, draws, row: tv.adjust_saturation(image, draws.saturation[row]),
    lambda image, draws, row: tv.adjust_hue(image, draws.hue[row]),
)
_ORDERS = list(itertools.permutations(range(4)))


def published_view(crop: Image.Image, draws: Photometry, row: int, settings: ViewSettings) -> Tensor:
    """One view from its resized crop by the operations of DataAugmentationDINO (main_dino.py), normalised."""
    image = tv.horizontal_flip(crop) if draws.flip[row] else crop
    # Where no jitter is drawn the chain is left out, as RandomApply does: a turn of hue by nothing would still round.
    if draws.brightness[row] != 1 or draws.hue[row] != 0:
        for step in _ORDERS[draws.order[row]]:
            image = _STEPS[step](image, draws, row)
    if draws.grey[row]:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if draws.sigma[row] > 0:
        image = image.filter(ImageFilter.GaussianBlur(radius=float(draws.sigma[row])))
    if draws.solarize[row]:
        image = ImageOps.solarize(image)
    return tv.normalize(tv.to_dtype(tv.pil_to_tensor(image), torch.float32, scale=True), list(settings.mean), list(settings.std))


def published_views(images: Sequence[OpenedImage], plan: Plan, settings: ViewSettings) -> Views:
    """What `finish_views` gives, by the published chain."""
    pictures = [Image.fromarray(image.pixels()) for image in images]

    def view(number: int) -> list[Tensor]:
        side = (settings.size(number),) * 2
        crops = [
            picture.crop(box).resize(side, Image.Resampling.BICUBIC)
            for picture, box in zip(pictures, plan.boxes[number].tolist(), strict=True)
        ]
        return [published_view(crop, plan.draws[number], row, settings) for row, crop in enumerate(crops)]

    kinds = [kind for kind in (range(2), range(2, settings.count)) if kind]
    return Views([torch.stack([crop for number in kind for crop in view(number)]) for kind in kinds], None, {})


@contextmanager
def views_by(finish: Callable[[Sequence[OpenedImage], Plan, ViewSettings], Views]) -> Iterator[None]:
    before = loader.finish_views
    loader.finish_views = finish
    try:
        yield
    finally:
        loader.finish_views = before


def recipe(given: argparse.Namespace) -> dict[str, object]:
    """The one of the README for CIFAR-10; colours as published, no blur at 32 pixels."""
    return {
        "threads": given.threads,
        "workers": 1,
        "batch_size": given.batch,
        "optimizer": {"learning_rate": 0.0015},
        "objective": {"center_momentum": 0.9, "warmup_teacher_temperature": 0.02, "head": {"prototypes": 512}},
        "views": {
            "global_size": 32,
            "local_size": 16,
            "local_count": 2,
            "global_scale": [0.3, 1.0],
            "local_scale": [0.1, 0.35],
            "jitter": 0.8,
            "blur": [0.0, 0.0, 0.0],
        },
        "probe_every_epochs": 1e6,
    }


def train(given: argparse.Namespace, out: Path, seed: int) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    epochs = given.steps / (given.images // given.batch)
    data = Path(given.cifar10) / "train.parquet"
    selfsight.train(
        data, out, backbone=given.backbone, epochs=epochs, limit=given.images, seed=seed, device="cpu", set=recipe(given)
    )
    return time.perf_counter() - start


def correct(spec: str, train: Source, test: Source) -> np.ndarray:
    """Which test images 20-NN gets right, 0 or 1."""
    encoder = selfsight.load_encoder(spec)
    bank, queries = (extract(encoder, source, device="cpu", cache=False) for source in (train, test))
    if train.labels is None or test.labels is None:
        raise SystemExit("views-accuracy: the images have no labels")
    known = np.asarray(train.labels)[bank.indices]
    scores = neighbours.knn_scores(
        metrics.normalize(bank.vectors), known, metrics.normalize(queries.vectors), [20], len(train.classes)
    )[20]
    return (scores.argmax(1) == np.asarray(test.labels)[queries.indices]).astype(float)


def run_seed(given: argparse.Namespace, seed: int, out: Path, sources: tuple[Source, Source]) -> dict[str, np.ndarray]:
    found = {}
    for name, finish in (("ours", loader.finish_views), ("peer", published_views)):
        with views_by(finish):
            seconds = train(given, out / f"{name}-{seed}", seed)
        found[name] = correct(str(out / f"{name}-{seed}"), *sources)
        print(f"seed {seed}: {name} {100 * found[name].mean():.2f} % after {given.steps} steps, {seconds:.0f} s", flush=True)
    weights = [(out / f"{name}-{seed}" / "teacher.safetensors").read_bytes() for name in ("ours", "peer")]
    if weights[0] == weights[1]:
        raise SystemExit("views-accuracy: both trainings came to the same weights, so the peer's views were not used")
    found["untrained"] = correct(f"{out / f'ours-{seed}'}?weights=init", *sources)
    gap = statistics.bootstrap_mean(found["ours"] - found["peer"])
    print(
        f"seed {seed}: untrained {100 * found['untrained'].mean():.2f} %; "
        f"ours - peer {gap.value:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar10", help="folder with train.parquet and test.parquet")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    # The peer is put in the place of ours in this process; only a worker that is forked from it sees that.
    multiprocessing.set_start_method("fork")
    folder = Path(given.cifar10)
    sources = (
        first(open_source(folder / "train.parquet"), given.images),
        first(open_source(folder / "test.parquet"), given.test),
    )
    with tempfile.TemporaryDirectory() as temporary:
        rows = [run_seed(given, seed, Path(temporary), sources) for seed in range(given.seeds)]
    ours, peer, limit = (np.mean([row[name] for row in rows], axis=0) for name in ("ours", "peer", "untrained"))
    gap = statistics.bootstrap_mean(ours - peer)
    print(f"ours - peer over {given.seeds} seeds: {gap.value:+.2f} points ({gap.low:+.2f} to {gap.high:+.2f})")
    x, y, z = (100 * values.mean() for values in (ours, peer, limit))
    print(f"views-accuracy ratio={x / y:.3f} ours={x:.2f} peer={y:.2f} limit={z:.2f} unit=top1")


if __name__ == "__main__":
    main()
