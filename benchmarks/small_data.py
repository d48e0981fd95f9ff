"""Claim: with few images and minutes a recipe does not collapse, and ends above the untrained copy of its network.

    python benchmarks/small_data.py [--images 500] [--minutes 2] [--recipe dino] [--seeds 2] [--set KEY=VALUE ...]

Pictures of the demo's kind are drawn, a recipe is trained on them without labels, and the teacher is compared with its untrained
copy by 20-NN on 800 other pictures: the paired difference with its interval of 95 %, and the curve of the probe on the way. The
limit is raw pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import selfsight
from selfsight import config
from selfsight.synthesis.loading import load_spec
from selfsight.synthesis.specs import DEMO

TEST = 800


def curve(run: Path) -> str:
    """minutes: 20-NN of the probe, and rank of its features."""
    rows = [row for line in (run / "metrics.jsonl").read_text().splitlines() if "knn_top1" in (row := json.loads(line))]
    return ", ".join(f"{row['elapsed_s'] / 60:.1f}: {row['knn_top1']:.1f} (rank {row['rankme']:.0f})" for row in rows)


def run_seed(given: argparse.Namespace, seed: int, out: Path) -> tuple[float, float, float]:
    """20-NN of the trained network, of its untrained copy and of raw pixels, in percent."""
    spec = load_spec(DEMO).model_copy(update={"splits": {"train": 1.0, "test": TEST / given.images}})
    selfsight.synth(spec, out / "images", count=given.images, seed=100 + seed)
    train, test, run = out / "images" / "train", out / "images" / "test", out / "run"
    overrides = config.merge({"probe_every_epochs": 1.0}, config.parse_overrides(given.set))
    summary = selfsight.train(
        train, run, recipe=given.recipe, minutes=given.minutes, seed=seed, device=given.device, set=overrides
    )
    specs = [str(run), f"{run}?weights=init", "pixels"]
    results = selfsight.compare(train, specs, out / "results", test=test, tasks=["knn"], device=given.device, incumbent=specs[1])
    values = {s.encoder: s.value for s in results.scores if s.metric == "top1_k20"}
    pair = next(c for c in results.comparisons if {c.a, c.b} == set(specs[:2]) and c.metric == "top1_k20")
    sign = 1 if pair.b == specs[0] else -1
    low, high = sorted((sign * pair.low, sign * pair.high))
    print(f"seed {seed}: {values[specs[0]]:.1f} %, untrained {values[specs[1]]:.1f} %, pixels {values['pixels']:.1f} %")
    print(f"  trained - untrained: {sign * pair.difference:+.1f} ({low:+.1f} to {high:+.1f}), {summary['step']} steps")
    print(f"  curve: {curve(run)}", flush=True)
    return values[specs[0]], values[specs[1]], values["pixels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--recipe", default="dino")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run_seed(given, seed, Path(folder)))
    ours, peer, limit = (statistics.mean(column) for column in zip(*rows, strict=True))
    name = f"small-data-{given.recipe}-{given.images}"
    print(f"{name} ratio={ours / peer:.3f} ours={ours:.2f} peer={peer:.2f} limit={limit:.2f} unit=top1")


if __name__ == "__main__":
    main()
