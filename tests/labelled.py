"""Pictures whose label is easy to see for people, at 16 pixels: which way stripes run, and which colours are in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

KINDS = ("across", "diagonal", "down")
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def stripes(path: Path, counts: tuple[int, ...], *, seed: int = 0, size: int = 16) -> Path:
    """A folder for each way in which stripes run, with so many pictures; phase, contrast and noise are random."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size]
    for kind, count in zip(KINDS, counts, strict=False):
        (path / kind).mkdir(parents=True, exist_ok=True)
        along = {"across": row, "diagonal": row + column, "down": column}[kind]
        for number in range(count):
            wave = np.sin(2 * np.pi * (along / 8 + rng.random())) * rng.uniform(30, 90)
            pixels = 128 + wave[..., None] + rng.normal(size=(size, size, 3)) * 12
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path / kind / f"{number:03d}.png")
    return path


def coloured(path: Path, count: int, *, seed: int = 0, size: int = 16) -> Path:
    """A Parquet file with `labels`: the colours of the quarters, none to three of them, of a grey picture."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for number in range(count):
        chosen = [name for name in COLOURS if rng.random() < 0.5]
        pixels = np.full((size, size, 3), 128.0)
        for quarter, name in zip(rng.permutation(4), chosen, strict=False):
            top, left = divmod(int(quarter) * size // 2, size)
            top = top * size // 2
            pixels[top : top + size // 2, left : left + size // 2] = COLOURS[name]
        pixels += rng.normal(size=pixels.shape) * 8
        data = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": f"{number}.png"})
        labels.append(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": rows, "labels": pa.array(labels, pa.list_(pa.string()))}), path)
    return path
