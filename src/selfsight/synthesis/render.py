"""Scenes to a data set on disk: pictures in class folders, label pictures beside them, rows in a manifest that streams.

::

    dataset.json  samples.parquet  objects.parquet        the manifest
    train/bolt/000012.png                                 SPLIT/CLASS/NUMBER.png; SPLIT/NUMBER.png without a label a picture
    labels/instances/train/000012.png                     numbers of objects, 16 bits
    labels/semantic/train/000012.png                      numbers of classes, 8 bits
    labels/depth/train/000012.npz                         of rendered scenes: `depth` in metres, 32 bits
    labels/normals/train/000012.npz                       and `normals`, 16 bits
    models/models.json  models/bolt.ply                   and the models that poses are of (`meshes`)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight import __version__
from selfsight.manifest import DatasetInfo, Writer
from selfsight.runs import room_for
from selfsight.synthesis.backends import BACKENDS, Backend, backend
from selfsight.synthesis.frame import object_rows, sample_row, semantic
from selfsight.synthesis.meshes import INDEX, write_models
from selfsight.synthesis.sampler import counts, sample
from selfsight.synthesis.spec import SynthSpec, dumped

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


class Job(NamedTuple):
    """A picture to draw."""

    split: str
    number: int

    def __str__(self) -> str:
        return f"picture {self.number} of {self.split}"


class Rows(NamedTuple):
    """What the manifest says of one picture."""

    sample: dict[str, Any]
    objects: list[dict[str, Any]]


class Drawn(NamedTuple):
    """A picture in memory: the bytes of its files by their paths in the set's folder, and its rows."""

    files: dict[str, bytes]
    rows: Rows

    def written(self, folder: Path) -> Rows:
        """Its rows, once its files are in `folder`. They are not written by way of temporary files: a picture that a kill cut off
        has no row, and is drawn again."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with room_for(path, len(content)):
                path.write_bytes(content)
        return self.rows


class Hands(Protocol):
    """What draws: processes of this machine, or the actors of a cluster."""

    def made(self, jobs: Sequence[Job]) -> Iterator[Rows]: ...


@dataclass(frozen=True)
class Order:
    """What is to be drawn, and where: `spec` is resolved for its backend, its files relative to `base`."""

    spec: SynthSpec
    base: Path
    folder: Path
    count: int
    seed: int

    def jobs(self) -> list[Job]:
        return [Job(split, number) for split, many in counts(self.spec, self.count).items() for number in range(many)]

    def info(self) -> DatasetInfo:
        spec = self.spec
        made = {"selfsight": __version__, "seed": self.seed, "count": self.count, "spec": dumped(spec)}
        return DatasetInfo(
            name=spec.name,
            classes=list(spec.classes),
            splits=list(counts(spec, self.count)),
            factors=spec.varied(),
            provenance=made,
        )

    def files(self) -> list[str]:
        """Files that the spec draws from, relative to `base`."""
        return [name for name in self.spec.named() if (self.base / name).is_file()]

    @property
    def lifetime(self) -> int:
        """Pictures after which a process that draws is replaced."""
        return BACKENDS[self.spec.backend].lifetime

    def drawer(self, threads: int = 0) -> Callable[[Job], Drawn]:
        """What draws a picture in the process that asks, with so many threads; 0 leaves their number to the backend."""
        drawer = backend(self.spec.backend, self.base)
        drawer.settings, drawer.threads = self.spec.render, threads
        return partial(_draw, self, drawer)

    def pen(self, threads: int = 0) -> Callable[[Job], Rows]:
        """What draws a picture in the process that asks, and writes it."""
        draw = self.drawer(threads)
        return lambda job: draw(job).written(self.folder)


def render(order: Order, hands: Hands) -> Iterator[tuple[int, int]]:
    """Draw what is missing; after each picture (pictures that are there, pictures in all).

    The manifest is closed at the end. Whoever stops before leaves a set that is readable, and the next call goes on.
    """
    jobs = order.jobs()
    place = {str(_key(job)): number for number, job in enumerate(jobs)}
    with Writer(order.folder, order.info(), going_on=True, order=lambda key: place[key]) as writer:
        _leave_models(order)
        missing = [job for job in jobs if _key(job) not in writer.done]
        yield len(jobs) - len(missing), len(jobs)
        for number, rows in enumerate(hands.made(missing), len(jobs) - len(missing) + 1):
            writer.add(*rows)
            yield number, len(jobs)


def _leave_models(order: Order) -> None:
    """Once, by the process that asks: it has looked at all models, wherever pictures are drawn."""
    if not (order.folder / INDEX).is_file() and (meshes := backend(order.spec.backend, order.base).meshes(order.spec)):
        write_models(order.folder, meshes)


def _key(job: Job) -> str:
    return f"{job.split}/{job.number:06d}"


def _draw(order: Order, backend: Backend, job: Job) -> Drawn:
    scene = sample(order.spec, order.seed, job.split, job.number)
    frame, classes = backend.draw(scene), list(order.spec.classes)
    folder = scene.split if scene.label is None else f"{scene.split}/{scene.label}"
    paths = {"path": f"{folder}/{scene.index:06d}.png"}
    paths |= {label: f"labels/{label}/{scene.key}.png" for label in ("instances", "semantic")}
    pixels: dict[str, Pixels] = {"path": frame.image, "instances": frame.instances, "semantic": semantic(scene, frame, classes)}
    files = {paths[what]: _png(values) for what, values in pixels.items()}
    for label, there in (("depth", frame.depth), ("normals", frame.normals)):
        if there is not None:
            paths[label] = f"labels/{label}/{scene.key}.npz"
            files[paths[label]] = _npz(label, there)
    told = scene.only(backend.factors)
    return Drawn(files, Rows(sample_row(told, classes, paths, frame.camera), object_rows(told, frame)))


def _png(pixels: Pixels) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG", compress_level=1)
    return written.getvalue()


def _npz(name: str, values: npt.NDArray[np.float32]) -> bytes:
    """Normals need no more than the 11 bits of a half."""
    written = io.BytesIO()
    np.savez_compressed(written, **{name: values if name == "depth" else values.astype(np.float16)})  # type: ignore[arg-type]
    return written.getvalue()
