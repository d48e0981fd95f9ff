"""What a rank holds and exchanges: images/s, bytes a step and peak memory on 1 and 2 ranks, with copies (ddp) and parts (fsdp).

    python benchmarks/scale.py [--backbone vit_small_patch16_224] [--batch 8] [--steps 3]

Ranks are processes over gloo on this machine's CPU. They share its cores, so that two are no faster than one here: what is
measured is what divides (memory) and what travels (bytes), not speed. Views are random; a step is what `train_step` does.

Sizes of the tensors that are averaged over ranks or gathered from them are those that torch's profiler saw in a step (gloo
averages whole tensors where NCCL scatters the parts). The state is what a rank holds after a step: student, teacher, gradients,
moments. Peak is the largest resident set during the steps, less that before the networks were made (Linux).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from selfsight import config
from selfsight.ssl.batch import Batch
from selfsight.ssl.learner import count, make_learner
from selfsight.ssl.parallel import joined
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.sharded import local
from selfsight.ssl.step import Learner, rates_at, train_step
from selfsight.ssl.world import World

SIZE, LOCAL, LOCALS = 64, 32, 2
MEMORY = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""With the second, what is freed leaves the process at once, so that its size is that of what it holds."""
WAYS = ((1, "ddp"), (2, "ddp"), (2, "fsdp"))


def settings_of(options: argparse.Namespace, strategy: str) -> TrainSettings:
    tree: dict[str, Any] = {
        "recipe": "dino",
        "data": "views",
        "images": options.batch,
        "epochs": 1,
        "batch_size": options.batch,
        "teacher_momentum": 0.996,
        "strategy": strategy,
        "precision": "float32",
        "objective": {"name": "dino", "head": {"prototypes": 4096}},
        "backbone": {"name": options.backbone, "image_size": SIZE},
        "views": {"global_size": SIZE, "local_size": LOCAL, "local_count": LOCALS},
        "optimizer": {"learning_rate": 5e-4, "freeze_last_layer": 0.0},
    }
    return config.build(TrainSettings, tree, "benchmark")


def held(learner: Learner) -> int:
    """Bytes of the state that this rank holds: student, teacher, gradients, moments."""
    tensors: list[Tensor] = [*learner.student.parameters(), *learner.teacher.parameters()]
    tensors += [parameter.grad for parameter in learner.student.parameters() if parameter.grad is not None]
    tensors += [value for state in learner.optimizer.state.values() for value in state.values() if value.ndim]
    return sum(part.numel() * part.element_size() for part in local(tensors))


def measured(options: argparse.Namespace, world: World, strategy: str) -> dict[str, float]:
    on, settings = torch.device("cpu"), settings_of(options, strategy)
    before = psutil.Process().memory_info().rss
    learner = make_learner(settings, on, world)
    size = options.batch // world.count
    views = [torch.randn(2 * size, 3, SIZE, SIZE), torch.randn(LOCALS * size, 3, LOCAL, LOCAL)]
    batch, rates = Batch(views, size), rates_at(0.5, 100, settings.optimizer, 0.996)

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here: networks are made whole before they are divided

    def step() -> float:
        start = time.perf_counter()
        train_step(learner, batch, rates, 3.0)
        return time.perf_counter() - start

    step()
    seconds = min(step() for _ in range(options.steps))
    peak = high_water() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        step()
    return {
        "parameters": count(learner.student),
        "images/s": options.batch / seconds,
        "averaged": sizes(profile, "gloo:all_reduce"),
        "gathered": sizes(profile, "c10d::_allgather_base_"),
        "held": held(learner),
        "peak": peak,
    }


def high_water() -> int:
    """The largest resident set of this process in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def sizes(profile: torch.profiler.profile, collective: str) -> int:
    """Bytes (of float32) of the whole tensors that went through a collective: the first that it is given."""
    found = [event.input_shapes[0] for event in profile.events() or () if event.name == collective]
    return 4 * sum(math.prod(shape) for shape in found)


def on_ranks(options: argparse.Namespace, ranks: int, strategy: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        together = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        words = ["--backbone", options.backbone, "--batch", str(options.batch), "--steps", str(options.steps)]
        command = [sys.executable, *together, __file__, *words, "--strategy", strategy, "--out", str(out)]
        subprocess.run(command, check=True, env=os.environ | MEMORY, stderr=subprocess.DEVNULL)
        found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--strategy", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        torch.set_num_threads(1)
        with joined() as world:
            found = measured(options, world, options.strategy)
            if world.leads:
                options.out.write_text(json.dumps(found), encoding="utf-8")
        return
    print(
        "| ranks | strategy | images/s | averaged, MB a step | gathered, MB a step | state of a rank, MB | peak of a rank, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = {(ranks, how): on_ranks(options, ranks, how) for ranks, how in WAYS}
    for (ranks, how), row in rows.items():
        averaged, gathered, state, peak = (row[name] / 1e6 for name in ("averaged", "gathered", "held", "peak"))
        name = how if ranks > 1 else "-"
        print(f"| {ranks} | {name} | {row['images/s']:.1f} | {averaged:.1f} | {gathered:.1f} | {state:.1f} | {peak:.0f} |")
    millions = rows[1, "ddp"]["parameters"] / 1e6
    whole, part = rows[2, "ddp"]["held"], rows[2, "fsdp"]["held"]
    print(f"{options.backbone}, {millions:.2f} million parameters with its head")
    print(f"scale-state ratio={whole / part:.2f} ours={part:.0f} peer={whole:.0f} limit=2.00 unit=bytes")


if __name__ == "__main__":
    main()
