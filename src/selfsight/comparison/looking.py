"""Every encoder of a comparison before pictures of which masks are known: the task `segmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from selfsight.attention.seeing import Eyes, Seen
from selfsight.comparison.assets import write_parquet
from selfsight.comparison.gather import Machine
from selfsight.comparison.journal import Journal, Reached, identity
from selfsight.comparison.looks import Drawn, drawn_look, drawn_truth
from selfsight.comparison.mask_outcomes import MaskOutcomes
from selfsight.comparison.plan import Plan
from selfsight.data.annotations import Annotations
from selfsight.data.decode import Picture
from selfsight.data.loader import read_picture
from selfsight.data.sources import BadImage, Source
from selfsight.data.undecodable import UndecodableError
from selfsight.encoders import Encoder
from selfsight.errors import ConfigError, DataError, WeightsError
from selfsight.evaluate.segmentation import Things, floors, own_map, values
from selfsight.results import Segmentation

PICTURES = 300
SHOWN = 8
FLOORS = ("centred box", "whole picture")
PLACES = 14
"""On the shorter side of a picture, at least: what a ViT with patches of 16 sees at 224. On fewer no mask can have a shape."""


@dataclass(frozen=True)
class Masks:
    """What is asked for: where the masks are, on how many pictures at most, and the seed that draws these."""

    annotations: Annotations
    limit: int = PICTURES
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """What was found, picture by picture; `own` is the map that stands for an encoder, `sizes` the shorter side that it
    looked at in pixels, `drawn` what the report shows."""

    masks: Masks
    outcomes: MaskOutcomes
    own: dict[str, str]
    sizes: dict[str, int]
    bad: list[BadImage] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)

    def record(self, plan: Plan) -> Segmentation:
        pairs = [pair for pair in plan.pairs if set(pair) <= self.own.keys()]
        pairs += [(floor, encoder) for encoder in self.own if encoder not in plan.floors for floor in FLOORS]
        return Segmentation(
            masks=self.masks.annotations.location,
            n=len(self.outcomes.keys),
            protocol=_protocol(self),
            own=self.own,
            scores=self.outcomes.scores(),
            differences=self.outcomes.differences(pairs, self.own),
        )


def write_measured(folder: Path, measured: Measured | None) -> None:
    """The values of every picture, and the pictures of the report if there are any; what an earlier comparison left goes."""
    values_at, looks_at = folder / "per_image_masks.parquet", folder / "assets" / "looks.parquet"
    for path in (values_at, looks_at):
        path.unlink(missing_ok=True)
    if measured is not None:
        write_parquet(values_at, measured.outcomes.rows())
        if measured.drawn:
            write_parquet(looks_at, {name: [getattr(each, name) for each in measured.drawn] for name in Drawn._fields})


class _Watching(NamedTuple):
    """An encoder of the comparison, and what it reached before."""

    spec: str
    eyes: Eyes
    journal: Journal


class _Shown(NamedTuple):
    """What all encoders reached on one picture, and what the report shows of it."""

    things: Things
    reached: dict[str, Reached]
    drawn: list[Drawn]


def measure(
    eyes: Mapping[str, Eyes], source: Source, masks: Masks, machine: Machine, *, group_by: str | None, images: bool
) -> Measured:
    """All encoders on the same pictures, at most `masks.limit` of those with masks, drawn by the seed.

    What was measured before is taken from the `Journal` of its encoder, but for the pictures that are shown. `DataError` where
    no picture has a thing in its masks, `TooManyBadError` where more pictures or masks cannot be read than the tolerance bears.
    """
    found = Measured(masks, MaskOutcomes(), {}, {spec: eye.prepare.size for spec, eye in eyes.items()})
    watching = [_Watching(spec, eye, Journal(eye, machine.say)) for spec, eye in eyes.items()]
    known = [index for index in range(len(source)) if masks.annotations.known(source, index)]
    order = [known[place] for place in np.random.default_rng(masks.seed).permutation(len(known)).tolist()]
    total, used = min(masks.limit, len(order)), list[int]()
    for tried, index in enumerate(order, 1):
        shown = _look(watching, source, index, masks.annotations, draw=images and len(used) < SHOWN)
        if isinstance(shown, BadImage):
            found.bad.append(shown)
        elif shown is not None:
            _add(found, source.keys[index], shown)
            used.append(index)
        machine.tolerance.check(found.bad, tried, len(order), masks.annotations.location)
        machine.advance("segmentation", total if tried == len(order) else len(used), total)
        if len(used) == masks.limit:
            break
    if not used:
        raise DataError(f"{masks.annotations.location}: not one of {len(order)} images has a thing in its masks")
    for spec, _, journal in watching:
        if journal.taken:
            machine.say(f"segmentation, {spec}: {journal.taken} pictures from the cache")
    if group_by is not None:
        found.outcomes.groups = source.groups(group_by)[used]
    return found


def eyes_of(encoders: Mapping[str, Encoder], machine: Machine) -> dict[str, Eyes]:
    """Those of every encoder that has places; the others are left out, which is said. `WeightsError` where none is left."""
    made = {}
    for spec, encoder in encoders.items():
        try:
            made[spec] = _tried(_close(Eyes(encoder.to(machine.device))), machine.device)
        except (WeightsError, ConfigError) as error:
            machine.say(f"segmentation leaves out {error}")
    if not made:
        raise WeightsError("--tasks segmentation: no encoder here has a map of a picture; add a ViT or a CNN of torch")
    return made


def _close(eyes: Eyes) -> Eyes:
    """At so many times the input of the encoder that there are `PLACES`: the paper, too, looks at 480 where it trained at 224."""
    size, patch = eyes.encoder.input_size, eyes.patch
    times = -(-PLACES * patch // size)
    return eyes if times == 1 else Eyes(eyes.encoder, times * size)


def _tried(eyes: Eyes, device: str) -> Eyes:
    """Itself, once it has seen a picture that is not square: some networks take one shape alone."""
    size, channels = eyes.prepare.size, len(eyes.prepare.mean)
    eyes.see(torch.zeros(1, channels, size, size + eyes.patch, device=device))
    return eyes


def _look(
    watching: Sequence[_Watching], source: Source, index: int, annotations: Annotations, *, draw: bool
) -> _Shown | BadImage | None:
    """What all reach on one picture; None where nothing is in its masks."""
    key = source.keys[index]
    try:
        truth = annotations.of(source, index)
    except (OSError, UndecodableError) as error:
        return BadImage(key, f"its masks: {error}")
    if truth is None or not len(things := Things(truth)):
        return None
    try:
        name = identity(source.image_bytes(index), things)
    except OSError as error:
        return BadImage(key, f"cannot be read ({error.strerror or error})")
    shown = _Shown(things, {}, [])
    for spec, eye, journal in watching:
        reached = None if draw else journal.get(name)
        if reached is None:
            picture = _picture(source, index, eye, things)
            if isinstance(picture, BadImage):
                return picture
            seen = eye(picture)
            reached = _reached(seen, things)
            journal.add(name, reached)
            if draw and not shown.drawn:
                shown.drawn.append(drawn_truth(key, picture, things))
            if draw:
                shown.drawn.append(drawn_look(key, spec, reached.own, picture, seen, things))
        shown.reached[spec] = reached
    return shown


def _picture(source: Source, index: int, eye: Eyes, things: Things) -> Picture | BadImage:
    picture = read_picture(source, index, eye.encoder.read)
    if isinstance(picture, BadImage) or (size := _size(picture)) == things.shape:
        return picture
    masks = f"{things.shape[1]}x{things.shape[0]}"
    return BadImage(source.keys[index], f"its masks are of {masks} pixels and it has {size[1]}x{size[0]}")


def _reached(seen: Seen, things: Things) -> Reached:
    # Where other programs are at work, threads that wait for one another over small matrices take 20 times as long.
    with threadpool_limits(1, user_api="blas"):
        return Reached(own_map(seen), list(values(seen, things)))


def _add(found: Measured, key: str, shown: _Shown) -> None:
    found.outcomes.add(key, {spec: each.values for spec, each in shown.reached.items()} | dict(floors(shown.things)))
    found.own.update({spec: each.own for spec, each in shown.reached.items()})
    found.drawn.extend(shown.drawn)


def _size(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[0], picture.shape[1]
    return picture.height, picture.width


def _protocol(measured: Measured) -> list[str]:
    """How it was done, in words."""
    kinds = ", ".join(f"{spec} by {'its attention' if own == 'attention' else 'the norm of its features'}"
                      for spec, own in measured.own.items())  # fmt: skip
    sizes = ", ".join(f"{spec} {size}" for spec, size in measured.sizes.items())
    return [
        f"pictures: {len(measured.outcomes.keys)} of those with masks in {measured.masks.annotations.location}, at most "
        f"{measured.masks.limit}, drawn with seed {measured.masks.seed}; pictures without a thing take no part",
        f"shorter side of a picture in pixels, so that there are at least {PLACES} places: {sizes}",
        "Jaccard: the fewest places that hold 60 or 80 % of a map against each thing at the size of the picture (nearest "
        "upsampling), averaged over the things of a picture and then over pictures",
        "best head: each thing is given the head that fits it best, as the DINO paper reports it; that choice looks at the truth "
        "and flatters any network with many heads, so read it beside that of the untrained one",
        f"own map, without a choice: {kinds}",
        "CorLoc: whether the box around the one object that is found overlaps that of any thing by at least half; mIoU: its mask "
        "against all things together",
        "floors: the whole picture, and a centred box of half its area, which no image was asked for; each is given to every "
        "measure",
        "intervals: percentile bootstrap over the pictures (or their groups), of differences in pairs, 95 % each, not corrected "
        "for how many there are: of twenty pairs that do not differ, one looks by chance as if it did",
    ]
