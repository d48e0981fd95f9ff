"""Scenes to a data set on disk: pictures in class folders, label pictures beside them, rows in a manifest that streams.

::

    dataset.json  samples.parquet  objects.parquet        the manifest
    train/bolt/000012.png                                 SPLIT/CLASS/NUMBER.png; SPLIT/NUMBER.png without a label a picture
    labels/instances/train/000012.png                     numbers of objects, 16 bits
    labels/semantic/train/000012.png                      numbers of classes, 8 bits
    labels/depth/train/000012.npz                         of rendered scenes: `depth` in metres, 32 bits
    labels/normals/train/000012.npz                       and `normals`, 16 bits
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight import __version__
from selfsight.manifest import DatasetInfo, Writer
from selfsight.runs import room_for
from selfsight.synthesis.backends import BACKENDS, Backend, backend
from selfsight.synthesis.crew import Crew
from selfsight.synthesis.frame import object_rows, sample_row, semantic
from selfsight.synthesis.sampler import counts, sample
from selfsight.synthesis.spec import SynthSpec, dumped


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

    def pen(self, threads: int = 0) -> Callable[[Job], Rows]:
        """What draws a picture in the process that asks, with so many threads; 0 leaves their number to the backend."""
        drawer = backend(self.spec.backend, self.base)
        drawer.settings, drawer.threads = self.spec.render, threads
        return partial(_draw, self, drawer)


def render(order: Order, workers: int, crew: Crew[Job, Rows] | None = None) -> Iterator[tuple[int, int]]:
    """Draw what is missing; after each picture (pictures that are there, pictures in all).

    The manifest is closed at the end. Whoever stops before leaves a set that is readable, and the next call goes on.
    """
    jobs = order.jobs()
    place = {str(_key(job)): number for number, job in enumerate(jobs)}
    with Writer(order.folder, order.info(), going_on=True, order=lambda key: place[key]) as writer:
        missing = [job for job in jobs if _key(job) not in writer.done]
        yield len(jobs) - len(missing), len(jobs)
        crew = crew or _crew(order, workers)
        for number, rows in enumerate(crew.made(missing), len(jobs) - len(missing) + 1):
            writer.add(*rows)
            yield number, len(jobs)


def _crew(order: Order, workers: int) -> Crew[Job, Rows]:
    """Workers share the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // workers) if workers else 0
    return Crew(partial(order.pen, threads), workers, lifetime=BACKENDS[order.spec.backend].lifetime)


def _key(job: Job) -> str:
    return f"{job.split}/{job.number:06d}"


def _draw(order: Order, backend: Backend, job: Job) -> Rows:
    scene = sample(order.spec, order.seed, job.split, job.number)
    frame, classes = backend.draw(scene), list(order.spec.classes)
    folder = scene.split if scene.label is None else f"{scene.split}/{scene.label}"
    paths = {"path": f"{folder}/{scene.index:06d}.png"}
    paths |= {label: f"labels/{label}/{scene.key}.png" for label in ("instances", "semantic")}
    _write(order.folder / paths["path"], frame.image)
    _write(order.folder / paths["instances"], frame.instances)
    _write(order.folder / paths["semantic"], semantic(scene, frame, classes))
    for label, values in (("depth", frame.depth), ("normals", frame.normals)):
        if values is not None:
            paths[label] = f"labels/{label}/{scene.key}.npz"
            _write_values(order.folder / paths[label], label, values)
    told = scene.only(backend.factors)
    return Rows(sample_row(told, classes, paths, frame.camera), object_rows(told, frame))


def _write(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Not by way of a temporary file: a picture that a kill cut off has no row, and is drawn again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path):
        Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_values(path: Path, name: str, values: npt.NDArray[np.float32]) -> None:
    """Normals need no more than the 11 bits of a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path):
        np.savez_compressed(path, **{name: values if name == "depth" else values.astype(np.float16)})  # type: ignore[arg-type]
