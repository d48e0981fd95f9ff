"""Features of every encoder over the same readable images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from selfsight.comparison import cost
from selfsight.data.sources import BadImage, Source
from selfsight.data.tolerance import Tolerance
from selfsight.encoders import Encoder, Features, extract, load_encoder
from selfsight.results import Cost, EncoderRecord, Role
from selfsight.runs import append_jsonl

Say = Callable[[str], None]
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gathered:
    """`vectors[encoder]` are features [n, D] of the samples `indices` of a source; `bad` are those that could not be read."""

    vectors: dict[str, npt.NDArray[np.float32]]
    indices: npt.NDArray[np.int64]
    bad: list[BadImage]


@dataclass(frozen=True)
class Machine:
    """Where and how features are computed, and who hears of it."""

    device: str
    workers: int
    batch_size: int
    say: Say
    advance: Advance
    tolerance: Tolerance
    max_pixels: int | None = None


@dataclass(frozen=True)
class About:
    """What the report is called, what it should say of the data, and whether it may show pictures of it."""

    title: str
    notes: tuple[str, ...] = ()
    images: bool = True


def load_all(specs: Sequence[str], machine: Machine) -> dict[str, Encoder]:
    """All encoders before any work, so that a wrong spec fails at once; their notes are said."""
    encoders = {}
    for spec in specs:
        encoders[spec] = load_encoder(spec)
        for note in encoders[spec].notes:
            machine.say(f"{spec}: {note}")
    return encoders


def gather(encoders: dict[str, Encoder], source: Source, part: str, machine: Machine) -> Gathered:
    """Features under every encoder, cut to the samples that all could read."""
    found: dict[str, Features] = {}
    for spec, encoder in encoders.items():

        def report(done: int, total: int, remark: str, spec: str = spec) -> None:
            machine.advance(f"{spec}, {part} images", done, total)
            if remark:
                machine.say(f"{spec}, {part} images: {remark}")

        if machine.max_pixels is not None:
            encoder.read = encoder.read.model_copy(update={"max_pixels": machine.max_pixels})
        found[spec] = extract(
            encoder,
            source,
            device=machine.device,
            batch_size=machine.batch_size,
            workers=machine.workers,
            tolerance=machine.tolerance,
            progress=report,
        )
    common = reduce(np.intersect1d, [f.indices for f in found.values()])
    vectors = {spec: f.vectors[np.isin(f.indices, common)] for spec, f in found.items()}
    bad = {b.key: b for f in found.values() for b in f.bad}
    return Gathered(vectors, common, [*source.rejected, *bad.values()])


def costs(specs: Sequence[str], machine: Machine) -> list[Cost]:
    out = []
    for number, spec in enumerate(specs):
        machine.advance("cost of each encoder", number, len(specs))
        out.append(cost.measure(spec, machine.device))
    machine.advance("cost of each encoder", len(specs), len(specs))
    return out


def record(encoder: Encoder, role: Role) -> EncoderRecord:
    return EncoderRecord(
        spec=encoder.spec,
        role=role,
        kind=cast(Literal["vit", "cnn", "pixels", "other"], encoder.kind),
        weights=encoder.weights,
        pool=encoder.pool,
        input_size=encoder.input_size,
        input=encoder.prepare.text,
        feature_width=encoder.feature_width,
        parameters=encoder.parameters,
    )


def write_bad(path: Path, bad: Sequence[BadImage]) -> int:
    """`bad_images.jsonl`, made anew; returns how many."""
    path.unlink(missing_ok=True)
    unique = {b.key: b.reason for b in bad}
    if unique:
        append_jsonl(path, [{"key": key, "reason": reason} for key, reason in unique.items()])
    return len(unique)
