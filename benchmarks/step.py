"""Claim: a whole training step of DINO at 1.2 times the rate of the same step assembled from lightly's modules, on the CPU.

    pip install lightly
    python benchmarks/step.py [--case vit-ti-224] [--pairs 12] [--threads 2] [--set KEY=VALUE]

A step is: teacher forward, student forward, loss, backward, clip, optimiser, running mean. Ours is `make_learner` and
`train_step`; the peer is put together as lightly's DINO example does it: `DINOProjectionHead`, `DINOLoss`, `update_momentum`, the
ViT of timm in `MaskedVisionTransformerTIMM`, AdamW. Its examples pass views through the networks in two ways, one view at a time
(DINO) and all views of a size at once (DINOv2); both take their turn, and the ratio is to the faster one. Same backbone, same
weights, same ready-made views, same head sizes, same clip limit, same precision and threads. Single steps alternate, so that
whatever else the machine does falls on all; the ratio is the median of the ratios within a round. The limit is the peer's
floating point operations (torch counts them) at the rate of a 1024 x 1024 matrix product, measured in each round.

Before anything is timed, the losses of both sides must agree on the same views, near ln K.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfsight import config, device
from selfsight.ssl.batch import Batch
from selfsight.ssl.learner import make_learner
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.step import rates_at, train_step

CLIP, MOMENTUM, RATE = 3.0, 0.996, 5e-4


class Case(NamedTuple):
    """Which network sees which views; `prototypes` is K."""

    backbone: str
    batch: int
    global_size: int
    local_size: int
    local_count: int
    prototypes: int
    precision: str = "float32"

    @property
    def timm(self) -> tuple[str, dict[str, Any]]:
        """The peer's network: the same in timm's words."""
        if self.backbone == "vit_w192_d6_p4":
            return "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 6}
        return self.backbone, {"img_size": self.global_size}


CPU = {
    "vit-ti-224": Case("vit_tiny_patch16_224", 8, 224, 96, 8, 65536),
    "vit-w192-32": Case("vit_w192_d6_p4", 64, 32, 16, 6, 2048),
}
GPU = {f"vit-s-224-b{n}": Case("vit_small_patch16_224", n, 224, 96, 8, 65536, "bfloat16") for n in (64, 128, 256)}


def settings_of(case: Case, on: torch.device, more: dict[str, Any]) -> TrainSettings:
    given = {
        "recipe": "dino",
        "data": "views",
        "images": case.batch,
        "epochs": 1,
        "batch_size": case.batch,
        "teacher_momentum": MOMENTUM,
        "objective": {"name": "dino", "head": {"prototypes": case.prototypes}},
        "backbone": {"name": case.backbone, "image_size": case.global_size},
        "views": {"global_size": case.global_size, "local_size": case.local_size, "local_count": case.local_count},
        "optimizer": {"learning_rate": RATE, "freeze_last_layer": 0.0},
        "precision": case.precision,
        "device": on.type,
    }
    return config.build(TrainSettings, config.merge(given, more), "the benchmark")


def views_of(case: Case, on: torch.device) -> list[Tensor]:
    """[views * B, 3, S, S] by size, view-major."""
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, case.global_size), (case.local_count, case.local_size)]
    return [torch.randn(count * case.batch, 3, size, size, generator=draw).to(on) for count, size in sizes]


class Peer(nn.Module):
    """Student and teacher from lightly's parts, with the weights of `student`."""

    def __init__(self, case: Case, student: nn.Module, on: torch.device, *, by_size: bool) -> None:
        super().__init__()
        try:
            from lightly.loss import DINOLoss
            from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
            from lightly.models.utils import deactivate_requires_grad
        except ImportError:
            sys.exit("step: the peer is missing: pip install lightly")
        name, options = case.timm
        vit = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
        vit.load_state_dict(student.backbone.net.state_dict())
        keep = {"weight_initialization": "skip", "pos_embed_initialization": "skip"}
        self.student_backbone = MaskedVisionTransformerTIMM(vit, antialias=False, **keep)
        self.teacher_backbone = copy.deepcopy(self.student_backbone)
        self.student_head, self.teacher_head = (DINOProjectionHead(vit.embed_dim, 2048, 256, case.prototypes) for _ in range(2))
        weights = {key.replace("mlp.", "layers."): value for key, value in student.heads["image"].state_dict().items()}
        for head in (self.student_head, self.teacher_head):
            head.load_state_dict(weights)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)
        self.criterion = DINOLoss(output_dim=case.prototypes)
        self.case, self.by_size = case, by_size
        self.to(on)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.04)

    def step(self, views: list[Tensor]) -> Tensor:
        from lightly.models.utils import update_momentum

        case = self.case
        with device.autocast(views[0].device, case.precision):
            given = views if self.by_size else [v for size in views for v in size.split(case.batch)]
            global_views = given[:1] if self.by_size else given[:2]
            teacher_out = [self.teacher_head(self.teacher_backbone(v).flatten(start_dim=1)) for v in global_views]
            student_out = [self.student_head(self.student_backbone(v).flatten(start_dim=1)) for v in given]
            if self.by_size:
                teacher_out, student_out = (list(torch.cat(out).split(case.batch)) for out in (teacher_out, student_out))
            loss: Tensor = self.criterion(teacher_out, student_out)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_momentum(self.student_backbone, self.teacher_backbone, m=MOMENTUM)
        update_momentum(self.student_head, self.teacher_head, m=MOMENTUM)
        return loss.detach()


def sides(case: Case, on: torch.device, more: dict[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """One step each, by name."""
    views = views_of(case, on)
    learner = make_learner(settings_of(case, on, more), on)
    peers = [Peer(case, learner.student, on, by_size=by_size) for by_size in (False, True)]
    rates = rates_at(0.5, 100, settings_of(case, on, more).optimizer, MOMENTUM)

    def ours() -> Tensor:
        return train_step(learner, Batch(views, case.batch), rates, CLIP, case.precision).value

    return {
        "ours": ours,
        "lightly, view by view": lambda: peers[0].step(views),
        "lightly, by size": lambda: peers[1].step(views),
    }


def agree(case: Case, steps: dict[str, Callable[[], Tensor]]) -> None:
    """The first losses are those of the same weights on the same views."""
    losses = {name: float(step()) for name, step in steps.items()}
    print("first losses: " + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()), flush=True)
    for name, loss in losses.items():
        if not math.isfinite(loss) or abs(loss - math.log(case.prototypes)) > 1.0:
            sys.exit(f"step: the first loss of {name} is {loss:.3f}, expected about ln K = {math.log(case.prototypes):.3f}")
        if abs(loss - losses["ours"]) > 0.02:
            sys.exit(f"step: the first loss of {name} is {loss:.4f}, ours {losses['ours']:.4f}: these are not the same step")


def seconds(step: Callable[[], Tensor], on: torch.device) -> float:
    device.synchronize(on)
    start = time.perf_counter()
    step()
    device.synchronize(on)
    return time.perf_counter() - start


def peak_gflops(on: torch.device, precision: str) -> float:
    """The matrix product's rate in the precision of the case."""
    if precision == "float32":
        return device.matmul_gflops(on)
    with device.autocast(on, precision):
        return device.matmul_gflops(on, 8192)


def run(name: str, case: Case, on: torch.device, pairs: int, more: dict[str, Any]) -> None:
    steps = sides(case, on, more)
    agree(case, steps)
    with FlopCounterMode(display=False) as counter:
        steps["lightly, by size"]()
    flops = counter.get_total_flops()
    for _ in range(2):  # compiled blocks and allocators settle
        steps["ours"]()
    rows, limits = [], []
    for number in range(pairs):
        order = list(steps) if number % 2 else list(reversed(steps))
        took = {side: seconds(steps[side], on) for side in order}
        rows.append({side: case.batch / took[side] for side in steps})
        limits.append(case.batch * peak_gflops(on, case.precision) * 1e9 / flops)
        print(f"round {number + 1:2d}: " + "   ".join(f"{side} {rate:7.2f}" for side, rate in rows[-1].items()), flush=True)
    median = {side: statistics.median(row[side] for row in rows) for side in steps}
    peer = max((side for side in steps if side != "ours"), key=lambda side: median[side])
    for side in steps:
        if side != "ours":
            print(f"ours to {side}: {statistics.median(row['ours'] / row[side] for row in rows):.3f}")
    ratio = statistics.median(row["ours"] / row[peer] for row in rows)
    limit = statistics.median(limits)
    print(f"ours uses {100 * median['ours'] / limit:.0f} % of the matrix product's rate, counted by the peer's operations")
    print(f"step-{name} ratio={ratio:.2f} ours={median['ours']:.2f} peer={median[peer]:.2f} limit={limit:.2f} unit=images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=[*CPU, *GPU], action="append", help="default: all that this machine's device can run")
    parser.add_argument("--pairs", type=int, default=12, help="rounds of one step each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of ours, as in selfsight train")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # lightly uses torch's older weight_norm
    torch.set_num_threads(given.threads)
    on = device.resolve("auto")
    cases = CPU | GPU
    for name in given.case or (CPU if on.type == "cpu" else GPU):
        run(name, cases[name], on, given.pairs, config.parse_overrides(given.set))


if __name__ == "__main__":
    main()
