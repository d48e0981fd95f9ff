"""Features computed by a cluster of Ray: its actors each load the encoder once and are given stretches of samples.

A stretch comes back as the bytes of a finished part. Where a process dies, Ray starts another and gives it the stretch again; a
part is written once it is back, under the name of its first sample, so that none is lost and none is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from selfsight.data.decode import DecodeSettings
from selfsight.data.sources import first, open_source
from selfsight.encoders import load_encoder
from selfsight.encoders.feature_file import Range, encoded_part
from selfsight.encoders.features import stretches
from selfsight.encoders.runtimes import Torch
from selfsight.ray_cluster import joined


class Task(NamedTuple):
    """What an actor needs to know; names of encoder and data must hold on every machine of the cluster."""

    encoder: str
    data: str
    limit: int | None
    read: DecodeSettings
    batch_size: int
    dtype: str


class Returned(NamedTuple):
    """A part that came back: its first sample and the bytes of its file."""

    start: int
    content: bytes


class Embedder:
    """What runs in an actor."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self.task = task
        self.encoder = load_encoder(task.encoder)
        self.encoder.read = task.read
        self.source = first(open_source(task.data), task.limit)
        self.runtime = Torch(self.encoder, torch.device("cpu"))

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        """One stretch, as columns of one row."""
        start, stop = int(rows["start"][0]), int(rows["stop"][0])
        found = list(stretches(self.encoder, self.source, self.runtime, batch_size=self.task.batch_size, start=start, stop=stop))
        content = encoded_part(found, self.source, self.encoder.feature_width, self.task.dtype)
        return {"start": [start], "content": [content.to_pybytes()]}


def parts_on_ray(task: Task, ranges: Sequence[Range], actors: int) -> Iterator[Returned]:
    """The parts of these stretches as they are done, in any order. A cluster that runs is joined, or one is started here.

    `ConfigError` without Ray.
    """
    ray = joined()
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"start": start, "stop": stop} for start, stop in ranges]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Embedder,
        fn_constructor_args=(task,),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    for row in done.iter_rows():
        yield Returned(int(row["start"]), row["content"])
