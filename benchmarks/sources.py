"""Claim: opening a folder, Parquet files or tar shards takes below 200 bytes of memory an entry, and time in proportion to it.

    python benchmarks/sources.py [--entries 10000 100000 1000000] [--kinds folder parquet shards] [--reads 20000]

Data sets of one-pixel images are made in a temporary folder and removed again (a million entries: about 3 GB and as many file
names). Each is opened in a fresh process whose libraries are loaded and which has opened a small set before, once without an
index and once with the one that this has left. Memory is the growth of the peak of the resident set. The peer is torchvision's
ImageFolder, measured in the same way on the same folder; it has no index. Reading takes the encoded bytes in the order of an
epoch, in batches of 256, from files that lie in the page cache.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfsight.data.sources import SOURCES, open_source

LIMIT = 200
A_FOLDER, A_GROUP, A_FILE = 1000, 5000, 100_000
BATCH = 256
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def make_folder(at: Path, entries: int) -> Path:
    """Folders of a thousand links to one file each: as many names as files, in a fraction of the time."""
    for start in range(0, entries, A_FOLDER):
        folder = at / f"class{start // A_FOLDER:05d}"
        folder.mkdir(parents=True)
        (folder / "image_000000.png").write_bytes(PIXEL)
        for number in range(1, min(A_FOLDER, entries - start)):
            (folder / f"image_{number:06d}.png").hardlink_to(folder / "image_000000.png")
    return at


def make_parquet(at: Path, entries: int) -> Path:
    at.mkdir()
    for start in range(0, entries, A_FILE):
        count = min(A_FILE, entries - start)
        image = [{"bytes": PIXEL, "path": f"image_{start + number:09d}.png"} for number in range(count)]
        table = pa.table({"image": image, "label": np.arange(start, start + count) // A_FOLDER})
        pq.write_table(table, at / f"{start:09d}.parquet", row_group_size=A_GROUP, use_dictionary=False)
    return at


def make_shards(at: Path, entries: int) -> Path:
    at.mkdir()
    padding = b"\0" * (-len(PIXEL) % 512)
    for start in range(0, entries, A_FILE):
        with (at / f"{start:09d}.tar").open("wb") as shard:
            for number in range(start, min(start + A_FILE, entries)):
                member = tarfile.TarInfo(f"image_{number:09d}.png")
                member.size = len(PIXEL)
                shard.write(member.tobuf(tarfile.USTAR_FORMAT) + PIXEL + padding)
            shard.write(b"\0" * 1024)
    return at


MAKERS: dict[str, Callable[[Path, int], Path]] = {"folder": make_folder, "parquet": make_parquet, "shards": make_shards}


def resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def opened(open_set: Callable[[str], Any], location: str) -> tuple[Any, dict[str, float]]:
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = time.perf_counter()
    found = open_set(location)
    seconds = time.perf_counter() - start
    return found, {"seconds": seconds, "bytes": (resident("VmHWM") - before) / len(found)}


def probe_ours(small: str, location: str, reads: int) -> dict[str, float]:
    warm = open_source(small)
    warm.image_bytes(0)
    source, figures = opened(open_source, location)
    start, done = time.perf_counter(), 0
    while done < min(reads, len(source)):
        drawn = source.draws(0, 0, np.arange(done, min(done + BATCH, len(source))))
        for index in np.sort(drawn.indices).tolist():
            source.image_bytes(index)
        done += len(drawn.indices)
    return figures | {"rate": done / (time.perf_counter() - start)}


def probe_peer(small: str, location: str, reads: int) -> dict[str, float]:
    from torchvision.datasets import ImageFolder

    def open_set(where: str) -> Any:
        return ImageFolder(where, loader=lambda path: Path(path).read_bytes())

    open_set(small)[0]
    found, figures = opened(open_set, location)
    order = np.random.default_rng(0).permutation(len(found))[:reads].tolist()
    start = time.perf_counter()
    for index in order:
        found[index]
    return figures | {"rate": len(order) / (time.perf_counter() - start)}


def measured(kind: str, small: Path, location: Path, reads: int, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--probe", kind, str(small), str(location), "--reads", str(reads)]
    environment = os.environ | {"SELFSIGHT_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def row(name: str, entries: int, first: dict[str, float], again: dict[str, float] | None) -> str:
    known = f"{again['seconds']:9.2f} {again['bytes']:9.0f}" if again else f"{'':9} {'':9}"
    speed = f"{first['seconds']:9.2f} {first['seconds'] / entries * 1e6:9.2f}"
    return f"{name:12} {entries:9,} {speed} {first['bytes']:9.0f} {known} {(again or first)['rate']:10,.0f}"


def compare(kinds: list[str], entries: int, reads: int, at: Path) -> tuple[dict[str, float], float]:
    """Bytes an entry of each kind and of the peer."""
    ours: dict[str, float] = {}
    folder = make_folder(at / "peer", entries)
    small = make_folder(at / "peer-small", 2 * A_FOLDER)
    peer = measured("peer", small, folder, reads, at / "cache")
    print(row("ImageFolder", entries, peer, None), flush=True)
    for kind in kinds:
        location = folder if kind == "folder" else MAKERS[kind](at / kind, entries)
        little = small if kind == "folder" else MAKERS[kind](at / f"{kind}-small", 100)
        first, again = (measured(kind, little, location, reads, at / "cache") for _ in range(2))
        ours[kind] = first["bytes"]
        print(row(kind, entries, first, again), flush=True)
    return ours, peer["bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=[kind for kind in MAKERS if kind in SOURCES], choices=list(MAKERS))
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        kind, small, location = given.probe
        print(json.dumps((probe_peer if kind == "peer" else probe_ours)(small, location, given.reads)))
        return
    print(f"{'':12} {'':9} {'opening':>19} {'peak':>9} {'with the index':>19} {'reading':>10}")
    print(f"{'source':12} {'entries':>9} {'s':>9} {'s/1e6':>9} {'B/entry':>9} {'s':>9} {'B/entry':>9} {'images/s':>10}")
    for entries in given.entries:
        with tempfile.TemporaryDirectory(prefix="selfsight-sources-") as name:
            ours, peer = compare(given.kinds, entries, given.reads, Path(name))
    for kind, value in ours.items():
        print(f"sources-{kind} ratio={value / peer:.2f} ours={value:.0f} peer={peer:.0f} limit={LIMIT} unit=bytes/entry")


if __name__ == "__main__":
    main()
