"""Small image folders, Parquet files and drawn sets for tests; the pictures are those of the demo."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from selfsight.synthesis.backends import Backend, backend
from selfsight.synthesis.crew import Crew
from selfsight.synthesis.files import resolved
from selfsight.synthesis.loading import load_spec
from selfsight.synthesis.render import Order, render
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.spec import SynthSpec
from selfsight.synthesis.specs import DEMO


class Drawn(NamedTuple):
    """A picture, the name of its class, and the mask of its object [side, side]."""

    image: Image.Image
    name: str
    mask: npt.NDArray[np.bool_]


@cache
def _drawer() -> tuple[SynthSpec, Backend]:
    drawer = backend("composite", DEMO.parent)
    return resolved(load_spec(DEMO), drawer, DEMO.name), drawer


CLASSES = tuple(load_spec(DEMO).classes)


def drawn(seed: int, index: int, side: int = 48, **factors: Any) -> Drawn:
    """Picture number `index`; its class cycles through `CLASSES`. `factors` are laid over those of the spec."""
    spec, drawer = _drawer()
    spec = SynthSpec.model_validate({**dict(spec), "size": side, "factors": {**spec.factors, **factors}})
    scene = sample(spec, seed, "train", index)
    frame = drawer.draw(scene)
    return Drawn(Image.fromarray(frame.image), str(scene.label), frame.instances > 0)


def dataset(path: Path, counts: Mapping[str, int], seed: int = 0, side: int = 32, **factors: Any) -> Path:
    """A drawn set of so many pictures a split, with its manifest, as `selfsight synth` leaves it but for the sheets."""
    spec, _ = _drawer()
    first = next(iter(counts.values()))
    splits = {split: count / first for split, count in counts.items()}
    spec = SynthSpec.model_validate({**dict(spec), "size": side, "splits": splits, "factors": {**spec.factors, **factors}})
    order = Order(spec, DEMO.parent, path, first, seed)
    for _ in render(order, Crew(order.pen, 0)):
        pass
    return path


def folder(path: Path, count: int, *, labelled: bool = True, seed: int = 0, size: int = 32, classes: int = len(CLASSES)) -> Path:
    """Pictures in class sub-folders, or all in one folder; only the first `classes` of them."""
    indices = (index for index in range(count * len(CLASSES)) if index % len(CLASSES) < classes)
    for done, index in zip(range(count), indices, strict=False):
        picture = drawn(seed, index, size)
        where = path / picture.name if labelled else path
        where.mkdir(parents=True, exist_ok=True)
        picture.image.save(where / f"{done:04d}.png")
    return path


def parquet(path: Path, count: int, *, classes: int = 4, column: str | None = None, seed: int = 0) -> Path:
    """Pictures in the Hugging Face layout, with an extra text column of groups of five if asked for."""
    rows, labels = [], []
    for index in range(count):
        data = io.BytesIO()
        drawn(seed, index, 32).image.save(data, "PNG")
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
