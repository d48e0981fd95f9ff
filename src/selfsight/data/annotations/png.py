"""Masks as pictures whose pixels are numbers, in a folder of their own, under the names of the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfsight.data.annotations.base import Annotated, Annotations, ByName, Instance
from selfsight.data.decode import open_pillow
from selfsight.data.sources import Source
from selfsight.data.undecodable import MAX_PIXELS, UndecodableError, reasons
from selfsight.errors import DataError

VOID = 255
_MOST_THINGS = 100
"""More different numbers in one mask are shades of grey."""

Labels = npt.NDArray[np.int64]


class PngAnnotations(Annotations):
    """A folder of PNG masks at any depth, each named as its image but for the ending.

    0 is the ground and each other number a thing. 255 is ignored, as in Pascal VOC, except where no other number is there: then
    the mask is black and white, and what is white is the thing.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.location = str(path)
        self.files = listed(path)

    def known(self, source: Source, index: int) -> bool:
        return self.files.known(source.keys[index])

    def of(self, source: Source, index: int) -> Annotated | None:
        path = self.files.get(source.keys[index])
        if path is None:
            return None
        labels = read_labels(path)
        numbers = np.unique(labels)
        if len(numbers) > _MOST_THINGS:
            raise UndecodableError(f"{path}: {len(numbers)} different values are no labels; expected whole numbers, or 0 and 255")
        black_and_white = set(numbers.tolist()) <= {0, VOID}
        ignored = np.zeros(labels.shape, dtype=np.bool_) if black_and_white else labels == VOID
        things = [number for number in numbers if number and (black_and_white or number != VOID)]
        return Annotated([Instance(labels == number) for number in things], ignored)


def matches(path: Path) -> bool:
    return path.is_dir()


def beside(source: Source) -> Path | None:
    """Nothing tells such a folder from one of images."""
    return None


def listed(folder: Path) -> ByName[Path]:
    """The PNG files below a folder by their path within it; `DataError` where there is none."""
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names if name.lower().endswith(".png")]
    if not found:
        raise DataError(f"{folder}: holds no .png; expected masks named as the images")
    return ByName((path.relative_to(folder).as_posix(), path) for path in found)


def read_labels(path: Path) -> Labels:
    """[H, W] of the numbers in a PNG, those of a palette as they are; `UndecodableError` for one in colours."""
    with reasons():
        image = open_pillow(path.read_bytes(), MAX_PIXELS)
        image.load()
        values = np.asarray(image)
    if image.mode == "RGB" and (values == values[..., :1]).all():
        values = values[..., 0]  # grey, saved as if it had colours
    if values.ndim != 2:
        raise UndecodableError(f"{path}: is in colours ({image.mode}); expected one number a pixel, 0 for the ground")
    return values.astype(np.int64) * (255 if values.dtype == bool else 1)
