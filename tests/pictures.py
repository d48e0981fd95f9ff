"""Small image folders and Parquet files for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from selfsight.synthesis.surfaces import CLASSES, draw, sample


def folder(path: Path, count: int, *, labelled: bool = True, seed: int = 0, size: int = 32, classes: int = len(CLASSES)) -> Path:
    """Drawn pictures in class sub-folders, or all in one folder; only the first `classes` patterns."""
    done = index = 0
    while done < count:
        surface = sample(seed, index, size)
        index += 1
        if CLASSES.index(surface.pattern) >= classes:
            continue
        where = path / surface.pattern if labelled else path
        where.mkdir(parents=True, exist_ok=True)
        draw(surface)[0].save(where / f"{done:04d}.png")
        done += 1
    return path


def parquet(path: Path, count: int, *, classes: int = 4, column: str | None = None, seed: int = 0) -> Path:
    """Drawn pictures in the Hugging Face layout, with an extra text column of groups of five if asked for."""
    rows, labels = [], []
    for index in range(count):
        data = io.BytesIO()
        draw(sample(seed, index, 32))[0].save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": f"{index:05d}.png"})
        labels.append(index % classes)
    columns = {"image": rows, "label": labels}
    if column:
        columns[column] = [f"group {index // 5}" for index in range(count)]
    table = pa.table(columns).replace_schema_metadata({"labels": ",".join(f"kind {c}" for c in range(classes))})
    pq.write_table(table, path)
    return path


def noise(path: Path, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def tar(path: Path, members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar archive of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
