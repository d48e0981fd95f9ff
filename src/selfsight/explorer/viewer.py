"""What the page asks for, as calls: pictures in, what each encoder sees of them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from selfsight.attention.seeing import Seen
from selfsight.explorer.album import Album, jpeg
from selfsight.explorer.onlooker import Answer, Onlooker
from selfsight.explorer.recent import Recent
from selfsight.retrieval.pictures import opened

SHOWN = 1280
"""The longer side of a picture as the page gets it, at most."""
_KEPT = 16
"""Pictures of which everything is kept that has been asked; an older one has to be opened again."""


class GoneError(LookupError):
    """A picture, an encoder or an image that is not there (any more)."""


@dataclass(frozen=True)
class Held:
    """A picture that was opened: its size, a JPEG to show, how it enters each encoder, and its number in the set, if any."""

    name: str
    width: int
    height: int
    shown: bytes
    ready: tuple[Tensor, ...]
    sample: int | None
    seen: dict[int, Seen] = field(default_factory=dict)

    def about(self) -> Answer:
        return {"picture": self.name, "width": self.width, "height": self.height, "sample": self.sample}


class Viewer:
    """Answers for the page. What is slow (`open`, `look`, `place`, `objects`) is meant for one thread, one call at a time."""

    def __init__(self, onlookers: Sequence[Onlooker], album: Album | None) -> None:
        self.onlookers, self.album = tuple(onlookers), album
        self._held: Recent[str, Held] = Recent(_KEPT)

    def open(self, data: bytes, sample: int | None = None) -> Held:
        """A picture by its bytes; the same bytes are the same picture. Raises `UndecodableError`."""
        name = hashlib.blake2b(data + repr(sample).encode(), digest_size=12).hexdigest()
        held = self._held.get(name)
        if held is None:
            held = self._held.put(name, self._prepared(name, data, sample))
        return held

    def open_sample(self, sample: int) -> Held:
        """An image of the set. Raises `UndecodableError`, and `GoneError` for one that there is not."""
        return self.open(self.images.data(sample), sample)

    @property
    def images(self) -> Album:
        if self.album is None:
            raise GoneError("no DATA was given, so there are no images to choose from")
        return self.album

    def held(self, name: str) -> Held:
        held = self._held.get(name)
        if held is None:
            raise GoneError("this picture is no longer held in memory: open it again")
        return held

    def look(self, name: str, encoder: int) -> Answer:
        held = self.held(name)
        return self.onlookers[encoder].look(self._seen(held, encoder), held.sample)

    def place(self, name: str, encoder: int, x: float, y: float) -> Answer:
        held = self.held(name)
        return self.onlookers[encoder].place(self._seen(held, encoder), x, y, held.sample)

    def objects(self, name: str, encoder: int, finder: str) -> Answer:
        held = self.held(name)
        return self.onlookers[encoder].objects(self._seen(held, encoder), finder)

    def _seen(self, held: Held, encoder: int) -> Seen:
        if encoder not in held.seen:
            held.seen[encoder] = self.onlookers[encoder].see(held.ready[encoder])
        return held.seen[encoder]

    def _prepared(self, name: str, data: bytes, sample: int | None) -> Held:
        """Only what is small is kept: a picture of 100 million pixels takes 300 MB, what an encoder gets of it one."""
        reads = [onlooker.encoder.read for onlooker in self.onlookers]
        pictures = {read: opened(data, read) for read in dict.fromkeys(reads)}
        ready = tuple(each.eyes.prepare(pictures[each.encoder.read]) for each in self.onlookers)
        pixels = np.asarray(pictures[reads[0]])
        return Held(name, pixels.shape[1], pixels.shape[0], jpeg(pixels, SHOWN), ready, sample)
