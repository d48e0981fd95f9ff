"""The validation part of a fine-tuning: which images it is, and what a network answers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from selfsight.api.classifier import Preprocessing, scores
from selfsight.data.agreement import check_agreement
from selfsight.data.holdout import Labels, hold_out, in_classes_of, labels_of, own_splits, strata
from selfsight.data.sources import BadImage, Source, Subset, absolute, open_source, overlap
from selfsight.data.tolerance import Tolerance
from selfsight.data.windows import image_batches
from selfsight.errors import DataError
from selfsight.ssl.probing import Embed, Probe
from selfsight.ssl.tuning import TuningSettings
from selfsight.ssl.world import BY_ITSELF, World

_VALIDATION = ("validation", "val", "valid")
"""Names that a source may give to the split that judges."""
_BATCH = 64
_KEPT = 2**29
"""Bytes of prepared pictures that are kept from one look to the next."""


@dataclass(frozen=True)
class Parts:
    """Images that train and images that judge, `held` back in the way it says; `splits` of a source that names its own are those
    which take part, and `notes` say what the user should know."""

    train: Source
    validation: Source
    held: str
    notes: list[str] = field(default_factory=list)
    splits: tuple[str, ...] = ()

    @property
    def labels(self) -> Labels:
        """Of the training part."""
        return labels_of(self.train)


def parts_as_named(source: Source, tuning: TuningSettings, seed: int, places: Iterable[str] = ()) -> Parts:
    """The parts of a source that tells its splits apart, else those of `parts_of`.

    Its rows `train` train, and its rows `validation` (or `val`) judge where no other source does. Rows of further splits take no
    part: somebody asks about them later, and what has been learnt by heart tells nothing.
    """
    splits = own_splits(source)
    if "train" not in splits or len(splits) == 1:
        return parts_of(source, tuning, seed, places)
    train, name = source.only(splits["train"]), next((name for name in _VALIDATION if name in splits), None)
    if tuning.validation is None and name is not None:
        held, how = Subset(source, splits[name]), f"its rows '{name}' of the column 'split'"
        taken = ["train", name]
        parts = _beside(train, held, tuning.group_by, f"{source.location}?split={name}", how)
    else:
        taken = ["train"]
        parts = parts_of(train, tuning, seed, places)
    others = ", ".join(f"'{each}'" for each in splits if each not in taken)
    said = f"note: {source.location}: the rows 'train' of its column 'split' train"
    return replace(parts, notes=[f"{said}; {others} take no part" if others else said, *parts.notes], splits=tuple(taken))


def parts_of(source: Source, tuning: TuningSettings, seed: int, places: Iterable[str] = ()) -> Parts:
    """`source` in two parts, or beside a validation source of its own; `DataError` for what cannot be trained or judged on.

    `places` are where the training images are, as the user named them.
    """
    if tuning.validation is not None:
        where = f"--validation {tuning.validation}"
        if any(overlap(absolute(place), absolute(tuning.validation)) for place in places):
            raise DataError(f"{where}: is the training images or within them; expected images that do not train")
        return _beside(source, open_source(tuning.validation), tuning.group_by, where, "given")
    said = check_agreement(source)
    labels = labels_of(source)
    _check_classes(source, labels)
    groups = None if tuning.group_by is None else source.groups(tuning.group_by)
    kept, chosen = hold_out(strata(labels), tuning.share, seed, groups)
    if not len(chosen) or not len(kept):
        what = f"one group of '{tuning.group_by}'" if groups is not None else f"{len(source)} images, each alone in its class"
        raise DataError(f"{source.location}: has {what}, so no part can be held back to judge by; give --validation")
    train, held = source.only(kept), Subset(source, chosen)
    _check_classes(train, labels_of(train), "the training part of ")
    how = f"{tuning.share:.0%} of each class" + (", whole groups" if groups is not None else "")
    return Parts(train, held, how, said + _notes(train, held))


def _beside(source: Source, held: Source, group_by: str | None, where: str, how: str) -> Parts:
    """All of `source` trains, and `held` judges."""
    said, labels = check_agreement(source), labels_of(source)
    _check_classes(source, labels)
    held = in_classes_of(held, source.classes, where)
    if labels_of(held).ndim != labels.ndim:
        raise DataError(f"{where}: one label an image here and lists of them there; expected the same in both")
    if group_by is not None:
        _check_apart(source, held, group_by, where)
    return Parts(source, held, how, said + _notes(source, held))


def _check_classes(source: Source, labels: Labels, part: str = "") -> None:
    present = labels.any(0).sum() if labels.ndim == 2 else len(np.unique(labels))
    if len(source.classes) < 2 or (labels.ndim == 1 and present < 2) or not present:
        raise DataError(f"{part}{source.location}: has images of {present} class; a classifier needs at least two")


def _check_apart(source: Source, held: Source, group_by: str, where: str) -> None:
    shared = np.intersect1d(source.groups(group_by), held.groups(group_by))
    if len(shared):
        raise DataError(f"{where}: {len(shared)} groups of '{group_by}' also train, first '{shared[0]}'; expected others")


def _notes(train: Source, held: Source) -> list[str]:
    notes = []
    for source, what in ((train, "training"), (held, "validation")):
        labels = labels_of(source)
        counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=len(source.classes))
        if len(missing := np.flatnonzero(counts == 0)):
            some = ", ".join(source.classes[k] for k in missing[:5])
            notes.append(f"note: {len(missing)} of {len(counts)} classes have no {what} image ({some})")
    return notes


class Judge:
    """Asks a network about the readable images of the validation part, each rank about its share.

    Pictures are decoded once where they fit into half a gigabyte. `bad` are those that could not be read, once there was a look;
    more of them than the tolerance bears are an error.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        workers: int,
        tolerance: Tolerance,
        world: World = BY_ITSELF,
    ) -> None:
        self.source, self.made, self.workers, self.tolerance, self.world = source, preprocessing, workers, tolerance, world
        places = np.arange(len(source))
        self.mine = places[len(places) * world.rank // world.count : len(places) * (world.rank + 1) // world.count]
        self.bad: list[BadImage] = []
        self._batches: list[tuple[Tensor, list[int]]] | None = None

    def probe(self, device: torch.device) -> Probe:
        def look(answer: Embed) -> dict[str, float]:
            logits, places = [], []
            for images, good in self._read():
                logits.append(answer(images.to(device)).float().cpu().numpy())
                places += good
            everywhere = self.world.collect((logits, places, self.bad))
            self.bad = [image for _, _, bad in everywhere for image in bad]
            rows = [part for parts, _, _ in everywhere for part in parts]
            if not rows:
                first = f"; first {self.bad[0].key}: {self.bad[0].reason}" if self.bad else ""
                raise DataError(f"{self.source.location}: not one validation image can be read{first}")
            known = labels_of(self.source)[np.array([place for _, each, _ in everywhere for place in each], dtype=np.int64)]
            return self.world.first(lambda: scores(np.concatenate(rows), known))

        return look

    def _read(self) -> Iterator[tuple[Tensor, list[int]]]:
        """Prepared images with their places."""
        if self._batches is not None:
            yield from self._batches
            return
        self.bad, kept, made = [], [], self.made
        small = 4 * len(made.mean) * made.size**2 * len(self.mine) <= _KEPT
        mine = Subset(self.source, self.mine)
        for good, images, bad in image_batches(mine, made.prepare, batch_size=_BATCH, workers=self.workers, read=made.read):
            self.bad += bad
            if images is not None:
                batch = (images, self.mine[good].tolist())
                kept += [batch] if small else []
                yield batch
        self.tolerance.check(self.bad, len(mine), len(mine), self.source.location)
        if small:
            self._batches = kept
