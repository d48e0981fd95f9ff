"""How much of a disk a set will take, asked before the first picture."""

from __future__ import annotations

import shutil
from pathlib import Path

from selfsight.errors import InputError
from selfsight.runs import counted, readable
from selfsight.synthesis.backends import BACKENDS
from selfsight.synthesis.sampler import counts
from selfsight.synthesis.spec import SynthSpec

_IMAGE = 3.0
_LABELS = {"instances": 0.5, "semantic": 0.25, "depth": 4.0, "normals": 6.0}
"""Bytes a pixel. A noisy photograph does not get smaller as a PNG; numbers of objects do, by ten and more."""
_BLOCK = 4096
"""Bytes of the last block of a file, which it takes whole."""
_ROW = 2048
"""Bytes of a row with its mask, both while rows stream and in the table that follows from them."""


def bytes_of(spec: SynthSpec, pictures: int) -> int:
    """What so many pictures may take with their labels and rows, rather too much than too little."""
    labels = [label for label in _LABELS if label in BACKENDS[spec.backend].labels]
    width, height = spec.size
    pixels = width * height * (_IMAGE + sum(_LABELS[label] for label in labels))
    objects = max(float(most) for way in spec.in_training("count") for most in way.span())
    return round(pictures * (pixels + (1 + len(labels)) * _BLOCK + (1 + objects) * _ROW))


def check_room(spec: SynthSpec, count: int, folder: Path, drawn: int) -> None:
    """`InputError` where the pictures that are still to be drawn, after `drawn` of them, may not fit on the disk of `folder`."""
    left = sum(counts(spec, count).values()) - drawn
    needed = bytes_of(spec, left)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        what = f"{counted(left, 'picture')} may take {readable(needed)}, and {readable(free)} are free on this disk"
        raise InputError(f"--out {folder}: {what}; make room, give another place, or a smaller --count")
