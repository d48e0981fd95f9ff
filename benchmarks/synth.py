"""How many labelled pictures are composited in a second.

    python benchmarks/synth.py
    python benchmarks/synth.py --count 2000 --rounds 5

Claim: at 128 pixels, with one to three objects, two processes draw 150 pictures a second or more with all labels, written to
disk. The peer is the shortest program that one would write oneself: Pillow turns and pastes a cut-out on a ground and saves
picture and mask, in as many processes, without light, shadows, overlaps, boxes, visible shares or factors. Both start their
processes within the time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

import selfsight
from selfsight.synthesis.spec import SynthSpec

SIDE = 128
ASKED = 150.0
GROUNDS = 40


def materials(folder: Path) -> None:
    """Cut-outs and grounds of the sizes that people have."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 255, (400, 300, 4), dtype=np.uint8)
        y, x = np.mgrid[-1:1:400j, -1:1:300j]
        pixels[..., 3] = np.where(x**2 + y**2 < 1, 255, 0)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "grounds").mkdir()
    for number in range(GROUNDS):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / "grounds" / f"{number}.jpg")


def ours(folder: Path, out: Path, count: int, workers: int) -> None:
    classes = {name: {"assets": str(folder / f"{name}.png")} for name in ("a", "b", "c")}
    factors = {"count": {"integers": [1, 3]}, "background": str(folder / "grounds")}
    given = {"name": "benchmark", "size": SIDE, "classes": classes, "factors": factors, "splits": {"train": 1.0}}
    selfsight.synth(SynthSpec.model_validate(given), out, count=count, workers=workers)


def peer(folder: Path, out: Path, count: int, workers: int) -> None:
    out.mkdir()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(paste, folder, out), range(count), chunksize=20))


def paste(folder: Path, out: Path, number: int) -> None:
    draw = random.Random(number)
    ground = Image.open(folder / "grounds" / f"{draw.randrange(GROUNDS)}.jpg").resize((SIDE, SIDE))
    thing = Image.open(folder / f"{draw.choice('abc')}.png")
    side = draw.randrange(40, 76)
    thing = thing.resize((side, side * 4 // 3)).rotate(draw.randrange(360), Image.Resampling.BILINEAR, expand=True)
    mask = Image.new("L", ground.size)
    at = draw.randrange(-20, 80), draw.randrange(-20, 80)
    ground.paste(thing, at, thing)
    mask.paste(255, at, thing)
    ground.save(out / f"{number}.png", compress_level=1)
    mask.save(out / f"{number}_mask.png", compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        materials(folder)
        for number in range(given.rounds):
            for who, work in (("ours", ours), ("peer", peer)):
                start = time.perf_counter()
                work(folder, folder / f"{who}{number}", given.count, given.workers)
                rates[who].append(given.count / (time.perf_counter() - start))
                print(f"round {number + 1}: {who} {rates[who][-1]:.1f} pictures/s")
    mine, theirs = (statistics.median(rates[who]) for who in ("ours", "peer"))
    print(f"synth-composite ratio={mine / theirs:.2f} ours={mine:.1f} peer={theirs:.1f} limit={ASKED:g} unit=pictures/s")


if __name__ == "__main__":
    main()
