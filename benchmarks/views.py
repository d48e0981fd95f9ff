"""Claim: JPEG bytes to ten normalised views (2 x 224 + 8 x 96) at four times the rate of lightly's DINOTransform, on one core.

    pip install lightly
    python benchmarks/views.py PHOTOS [--rounds 12]

PHOTOS is a folder of JPEGs (default: the environment variable SELFSIGHT_PHOTOS). Ours, the peer and decoding alone (the limit)
take turns on the same images, so that whatever else the machine does falls on all three; rates are medians over the rounds and
the ratio is the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from selfsight.data.multicrop import finish_views, plan_views
from selfsight.data.opening import open_image
from selfsight.data.views import ViewSettings

BATCH = 16


def ours(images: list[bytes], settings: ViewSettings) -> None:
    for start in range(0, len(images), BATCH):
        opened = [open_image(data) for data in images[start : start + BATCH]]
        views = finish_views(opened, plan_views(opened, range(len(opened)), 0, start, settings), settings)
        assert [len(v) for v in views.crops] == [2 * len(opened), 8 * len(opened)]


def peer() -> Callable[[list[bytes]], None]:
    try:
        from lightly.transforms import DINOTransform
    except ImportError:
        sys.exit("views: the peer is missing: pip install lightly")
    transform = DINOTransform(n_local_views=8)

    def run(images: list[bytes]) -> None:
        for data in images:
            assert len(transform(Image.open(io.BytesIO(data)).convert("RGB"))) == 10

    return run


def decode_alone(images: list[bytes]) -> None:
    for data in images:
        open_image(data).pixels()


def rate(work: Callable[[list[bytes]], None], images: list[bytes]) -> float:
    start = time.perf_counter()
    work(images)
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", default=os.environ.get("SELFSIGHT_PHOTOS"), help="folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    if given.photos is None:
        parser.error("no PHOTOS given and SELFSIGHT_PHOTOS is not set: give a folder of JPEGs")
    files = sorted(p for p in Path(given.photos).iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    if len(files) < BATCH:
        parser.error(f"{given.photos}: holds {len(files)} JPEGs, expected at least {BATCH}")
    torch.set_num_threads(1)
    images = [path.read_bytes() for path in files]
    settings, theirs = ViewSettings(), peer()

    def mine(part: list[bytes]) -> None:
        ours(part, settings)

    rows = []
    for number in range(given.rounds + 1):
        start = number * 4 * BATCH % max(1, len(images) - 4 * BATCH + 1)
        part = images[start : start + 4 * BATCH]
        row = (rate(mine, part), rate(theirs, part), rate(decode_alone, part))
        if number:  # the first round warms up
            rows.append(row)
            print(
                "round {:2d}: ours {:6.1f}   lightly {:6.1f}   decoding alone {:6.1f} images/s".format(number, *row), flush=True
            )
    ratio = statistics.median(a / b for a, b, _ in rows)
    x, y, z = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"views ratio={ratio:.2f} ours={x:.1f} peer={y:.1f} limit={z:.1f} unit=images/s")


if __name__ == "__main__":
    main()
