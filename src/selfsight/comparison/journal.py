"""What an encoder reached on pictures with masks, kept as it is measured, so that an interrupted comparison goes on.

A row is one picture under the hash of its bytes and of its things; the file is named by the hash of all else that decides a
value. So neither the order of pictures nor how many are asked for matters, and a changed mask is measured anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from selfsight.attention.objects import FINDERS
from selfsight.attention.seeing import Eyes
from selfsight.encoders.base import digest
from selfsight.errors import DiskFullError, InputError
from selfsight.evaluate.segmentation import MAPS, MASSES, Things, Value
from selfsight.runs import append_jsonl, cache_folder, read_jsonl

FORMAT = "1"
"""Part of every name: a change of a measure, of a way to find objects or of the eyes makes all that is kept stale."""


class Reached(NamedTuple):
    """What an encoder reached on one picture; `own` is the map that stands for it."""

    own: str
    values: list[Value]


class Journal:
    """The rows of one encoder, of which `taken` were of use. One that is damaged or cannot be written costs time, never the
    comparison; `say` hears of it."""

    def __init__(self, eyes: Eyes, say: Callable[[str], None]) -> None:
        self.path, self.spec, self.say = cache_folder("looks") / f"{_name(eyes)}.jsonl", eyes.encoder.spec, say
        self.taken, self.writable = 0, True
        self._rows = self._read()

    def get(self, picture: str) -> Reached | None:
        """What was reached on the picture of this `identity`, if that is known."""
        found = self._rows.get(picture)
        self.taken += found is not None
        return found

    def add(self, picture: str, reached: Reached) -> None:
        """Write a row, unless it is there."""
        if picture in self._rows or not self.writable:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_jsonl(self.path, [{"picture": picture, **reached._asdict()}])
        except (OSError, DiskFullError) as error:
            self.writable = False
            self.say(f"{self.spec}: what it reaches is not kept: {self.path.parent} cannot be written ({error})")

    def _read(self) -> dict[str, Reached]:
        try:
            return {row["picture"]: _row(row) for row in read_jsonl(self.path)}
        except (OSError, InputError, KeyError, TypeError, ValueError) as error:
            self.say(f"{self.spec}: what it reached is damaged and measured again: {self.path} ({error})")
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            self.writable = False
        return {}


def identity(data: bytes, things: Things) -> str:
    """Hex digest of a picture's bytes, of its things and of the pixels that count."""
    total = hashlib.blake2b(hashlib.blake2b(data).digest() + repr(things.shape).encode(), digest_size=20)
    for mask in (things.count, *things.masks):
        total.update(np.packbits(mask).data)
    return total.hexdigest()


def _name(eyes: Eyes) -> str:
    measured = (sorted(FINDERS), sorted(MAPS), sorted(MASSES.items()))
    looked = (eyes.encoder.fingerprint, eyes.encoder.read, eyes.prepare, eyes.block)
    return digest([FORMAT, *map(repr, (*looked, *measured))], [])


def _row(row: dict[str, Any]) -> Reached:
    """`TypeError`, `KeyError` or `ValueError` for what was never written."""
    values = [Value(str(method), str(metric), float(value)) for method, metric, value in row["values"]]
    if not all(0 <= each.value <= 1 for each in values):
        raise ValueError("a value is not between 0 and 1")
    return Reached(str(row["own"]), values)
