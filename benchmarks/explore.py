"""Claim: the page of `selfsight explore` answers a click in under 300 ms, for a ViT-S at 224 with 2,000 images indexed.

    python benchmarks/explore.py [DATA] [--encoder random/vit_small_patch16_224] [--clicks 100] [--threads 2]

The real program in a process of its own, real HTTP requests on one connection, one after the other. DATA is any set of at least
2,000 images; by default they are drawn at 224 pixels. Their features stay in the cache, so that the second run starts at once.

Each click is at a random point of one of eight pictures that have been opened before, and is answered when everything that it
changes on the page is there: the likeness of all places, the twelve nearest images with their best place, and the small pictures
of these twelve, which a browser asks for next (and several at a time). Peer: the search alone, done plainly and with as many
threads: the product with all features in float32 and the best of each image. It takes four times the memory, and it has no page,
no request and no picture to read and to shrink.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from threadpoolctl import threadpool_limits

import selfsight
from selfsight.synthesis.loading import load_spec
from selfsight.synthesis.specs import DEMO

IMAGES, SIDE, PICTURES = 2000, 224, 8
WIDTH, PLACES = 384, 196
LIMIT = 300.0


class Page:
    """Requests on one connection, and how long each took in milliseconds."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address.split("/")[2], timeout=600)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            sys.exit(f"explore: {path} was answered with {answer.status}: {data[:200]!r}")
        return data

    def json(self, method: str, path: str, body: bytes | None = None) -> Any:
        return json.loads(self.ask(method, path, body))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = work()
    return made, 1000 * (time.perf_counter() - start)


def drawn(folder: Path, count: int, seed: int) -> Path:
    """The demo's pictures, larger."""
    spec = load_spec(DEMO).model_copy(update={"size": (SIDE, SIDE), "splits": {"train": 1.0}})
    selfsight.synth(spec, folder, count=count, seed=seed)
    return folder / "train"


def sheet(images: Sequence[Path]) -> bytes:
    """Twelve patterns beside each other, so that points differ."""
    whole = Image.new("RGB", (4 * SIDE, 3 * SIDE))
    for place, path in enumerate(images):
        whole.paste(Image.open(path), (SIDE * (place % 4), SIDE * (place // 4)))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=92)
    return file.getvalue()


def started(encoder: str, data: str, threads: int) -> tuple[subprocess.Popen[str], str]:
    """The program, once it has printed its address."""
    command = [sys.executable, "-c", "from selfsight.cli import main; main()", "explore", encoder, data, "--limit", str(IMAGES)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if "(Ctrl-C ends it)" in line:
            return process, line.split()[0]
    sys.exit("explore: the program ended before it printed an address")


def clicks(page: Page, asked: Sequence[Path], count: int) -> dict[str, list[float]]:
    """Times in milliseconds by what was waited for."""
    names, times = [], {"a new picture, encoded": [], "the answer to a click": [], "a click with its twelve small pictures": []}
    for number in range(PICTURES):
        data = sheet(asked[12 * number : 12 * number + 12])
        found, upload = timed(lambda data=data: page.json("POST", "/api/pictures", data)["picture"])
        _, look = timed(lambda found=found: page.json("GET", f"/api/pictures/{found}/0/look"))
        names.append(found)
        times["a new picture, encoded"].append(upload + look)
    draws = np.random.default_rng(0)
    for number in range(count):
        x, y = draws.random(2)
        path = f"/api/pictures/{names[number % PICTURES]}/0/place?x={x}&y={y}"
        answer, place = timed(lambda path=path: page.json("GET", path))
        _, small = timed(lambda answer=answer: [page.ask("GET", f"/api/data/{near['sample']}/small") for near in answer["near"]])
        if len(answer["near"]) != 12:
            sys.exit(f"explore: {len(answer['near'])} neighbours, expected 12")
        times["the answer to a click"].append(place)
        times["a click with its twelve small pictures"].append(place + small)
    return times


def plainly(threads: int) -> float:
    """Median time of the search alone in float32, over features of the same number and size."""
    draws = np.random.default_rng(0)
    features = draws.standard_normal((IMAGES * PLACES, WIDTH), np.float32)
    with threadpool_limits(threads):
        return statistics.median(timed(partial(nearest, features, features[row]))[1] for row in range(20))


def nearest(features: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.argsort((features @ query).reshape(IMAGES, PLACES).max(1))[-12:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--encoder", default="random/vit_small_patch16_224")
    parser.add_argument("--clicks", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = sorted(drawn(Path(folder) / "asked", 12 * PICTURES, 1).rglob("*.png"), key=lambda path: path.name)
        data = given.data or str(drawn(Path(folder) / "data", IMAGES, 0))
        process, address = started(given.encoder, data, given.threads)
        try:
            times = clicks(Page(address), asked, given.clicks)
        finally:
            process.send_signal(signal.SIGINT)
            ended = process.wait(60)
    for what, each in times.items():
        middle, late = statistics.median(each), float(np.percentile(each, 95))
        print(f"{what}: median {middle:.0f} ms, 95th percentile {late:.0f} ms, of {len(each)}")
    print(f"stopped by Ctrl-C with exit code {ended}")
    whole = times["a click with its twelve small pictures"]
    ours, peer = statistics.median(whole), plainly(given.threads)
    print(f"the 95th percentile of a click is {np.percentile(whole, 95):.0f} ms; the ratio is to the search alone in float32")
    print(f"explore ratio={ours / peer:.2f} ours={ours:.1f} peer={peer:.1f} limit={LIMIT:.0f} unit=ms")


if __name__ == "__main__":
    main()
