"""Claim: in the same time, on the same images, our `dino` recipe teaches a network no less than lightly's DINO modules do.

    python benchmarks/quality.py DATA --minutes M [--test DATA] [--device D] [--seeds 3] [--backbone NAME]

DATA is any labelled source (the labels only measure); without --test a fifth of it is held out. Without DATA the demo's pictures
are drawn. For each seed the same network, started from the same weights, is trained twice for the same wall-clock time, in turn:
with `selfsight train --minutes M`, and with lightly's modules put together as the DINO example of its documentation does: Adam
of rate 1e-3, a batch of 64, a head of 512, 64 and 2,048, momentum .996 to 1, six local views, `DINOTransform`. Its ten epochs are
stretched over the time, and its views have the sizes of ours, since the network could take no others. Both get the same threads
and as many processes that read images.

20-NN accuracy of the teachers on the test images. The limit is the untrained network.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import DINOTransform
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import selfsight
from selfsight import config, device, metrics, neighbours
from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, Source, first, open_source
from selfsight.data.sources.base import Subset
from selfsight.encoders.base import TorchEncoder
from selfsight.encoders.features import extract
from selfsight.encoders.preprocess import Preprocess, plain_crop
from selfsight.models.backbones import Backbone
from selfsight.ssl.learner import initial_backbone
from selfsight.ssl.settings import TrainSettings
from selfsight.synthesis.specs import DEMO

EPOCHS, BATCH = 10, 64
DRAWN = 3000


class Pictures(Dataset[list[Tensor]]):
    """The views that lightly makes of each readable sample."""

    def __init__(self, source: Source, transform: DINOTransform) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = read_image(self.source, index)
        if isinstance(image, BadImage):
            raise SystemExit(f"quality: {image.key} cannot be read; the peer has no way to go on without it")
        return list(self.transform(image))


class PeerDINO(nn.Module):
    """Student and teacher as in lightly's example."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.student_backbone, self.teacher_backbone = backbone, copy.deepcopy(backbone)
        self.student_head = DINOProjectionHead(backbone.width, 512, 64, 2048, freeze_last_layer=1)
        self.teacher_head = DINOProjectionHead(backbone.width, 512, 64, 2048)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)

    def student(self, view: Tensor) -> Tensor:
        return self.student_head(self.student_backbone(view).summary)

    def teacher(self, view: Tensor) -> Tensor:
        return self.teacher_head(self.teacher_backbone(view).summary)


def forever(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def train_peer(settings: TrainSettings, source: Source, seconds: float, on: torch.device) -> tuple[Backbone, int]:
    """The teacher's backbone after `seconds`, and how many steps they held."""
    backbone = initial_backbone(settings)
    model = PeerDINO(backbone).to(on)
    views = settings.views
    transform = DINOTransform(global_crop_size=views.global_size, local_crop_size=views.local_size)
    loader = DataLoader(Pictures(source, transform), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=settings.workers)
    criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5).to(on)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start, steps = time.monotonic(), 0
    for batch in forever(loader):
        progress = (time.monotonic() - start) / seconds
        if progress >= 1:
            break
        epoch = int(progress * EPOCHS)
        momentum = cosine_schedule(epoch, EPOCHS, 0.996, 1)
        update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
        update_momentum(model.student_head, model.teacher_head, m=momentum)
        moved = [view.to(on) for view in batch]
        with torch.no_grad():
            targets = [model.teacher(view) for view in moved[:2]]
        loss = criterion(targets, [model.student(view) for view in moved], epoch=epoch)
        loss.backward()
        model.student_head.cancel_last_layer_gradients(current_epoch=epoch)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return model.teacher_backbone.eval(), steps


def accuracy(encoder: Any, train: Source, test: Source, on: torch.device) -> float:
    """20-NN in percent."""
    bank, queries = (extract(encoder, source, device=on, cache=False) for source in (train, test))
    known, true = (np.asarray(s.labels)[f.indices] for s, f in ((train, bank), (test, queries)))
    scores = neighbours.knn_scores(
        metrics.normalize(bank.vectors), known, metrics.normalize(queries.vectors), [20], len(train.classes)
    )[20]
    return float(metrics.top_k_accuracy(scores, true, 1))


def curve(run: Path) -> list[tuple[float, float]]:
    """(minutes, 20-NN of the probe) over our training."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(round(row["elapsed_s"] / 60, 1), row["knn_top1"]) for row in rows if "knn_top1" in row]


def run_seed(given: argparse.Namespace, seed: int, out: Path, sources: tuple[Source, Source], data: str) -> dict[str, float]:
    on = device.resolve(given.device)
    run = out / f"ours-{seed}"
    overrides = config.merge({"probe_every_epochs": 2.0}, config.parse_overrides(given.set))
    summary = selfsight.train(
        data,
        run,
        minutes=given.minutes,
        seed=seed,
        device=given.device,
        backbone=given.backbone,
        limit=given.limit,
        set=overrides,
    )
    settings = config.load(TrainSettings, run / "config.yaml")
    torch.set_num_threads(settings.threads or device.cores())
    peer, steps = train_peer(settings, sources[0], given.minutes * 60, on)
    size = settings.views.global_size
    prepare = Preprocess(size, settings.views.mean, settings.views.std, plain_crop(size))
    found = {
        "ours": accuracy(selfsight.load_encoder(str(run)), *sources, on),
        "peer": accuracy(TorchEncoder("lightly", peer, prepare, size, None, "lightly"), *sources, on),
        "untrained": accuracy(selfsight.load_encoder(f"{run}?weights=init"), *sources, on),
    }
    shown = ", ".join(f"{name} {value:.2f} %" for name, value in found.items())
    print(f"seed {seed}: {shown} (steps: ours {summary['step']} of {settings.batch_size}, peer {steps} of {BATCH})")
    print(f"  curve of ours: {curve(run)}", flush=True)
    return found


def parts(given: argparse.Namespace, out: Path) -> tuple[str, Source, Source]:
    """Where to train, and the labelled sources to measure with."""
    if given.data is None:
        selfsight.synth(DEMO, out / "images", count=DRAWN)
        given.data, given.test = str(out / "images" / "train"), str(out / "images" / "test")
    train = open_source(given.data)
    if given.limit is not None:
        train = first(train, given.limit)
    test = open_source(given.test) if given.test else None
    if test is None:
        order = np.random.default_rng(0).permutation(len(train))
        cut = len(train) // 5
        train, test = Subset(train, np.sort(order[cut:])), Subset(train, np.sort(order[:cut]))
        print(f"{cut} images held out; the trainings see all of them, without labels")
    if train.labels is None or test.labels is None:
        raise SystemExit("quality: the images have no labels; they are needed to measure")
    return given.data, train, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--test")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--backbone")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        data, train, test = parts(given, out)
        rows = [run_seed(given, given.first_seed + seed, out, (train, test), data) for seed in range(given.seeds)]
    mean = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    gaps = [row["ours"] - row["peer"] for row in rows]
    above = [row["ours"] - row["untrained"] for row in rows]
    print(
        f"ours - peer: {', '.join(f'{gap:+.2f}' for gap in gaps)}; ours - untrained: {', '.join(f'{gap:+.2f}' for gap in above)}"
    )
    ratio = mean["ours"] / mean["peer"]
    print(f"quality ratio={ratio:.3f} ours={mean['ours']:.2f} peer={mean['peer']:.2f} limit={mean['untrained']:.2f} unit=top1")


if __name__ == "__main__":
    main()
