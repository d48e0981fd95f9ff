"""Cut-outs: the alpha channel of a picture is the mask of its thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ImageOps

from selfsight.data.annotations.base import Annotated, Annotations, Bools, Instance
from selfsight.data.decode import open_pillow
from selfsight.data.sources import Source
from selfsight.data.undecodable import MAX_PIXELS, UndecodableError, reasons

_OPAQUE = 128
_LOOKED_AT = 16
"""Pictures that are opened to find out whether a source is one of cut-outs."""


class AlphaAnnotations(Annotations):
    """What is at least half opaque is the thing. Pictures without an alpha channel, or all opaque, have no mask."""

    def __init__(self, path: Path, source: Source) -> None:
        self.location = "the alpha channels of the images"

    def known(self, source: Source, index: int) -> bool:
        return True

    def of(self, source: Source, index: int) -> Annotated | None:
        mask = cut_out(source.image_bytes(index))
        return None if mask is None else Annotated([Instance(mask)], np.zeros(mask.shape, dtype=np.bool_))


def matches(path: Path) -> bool:
    """`--masks alpha`: no place, but that the images hold them."""
    return str(path) == "alpha" and not path.exists()


def beside(source: Source) -> Path | None:
    """Where one of the first pictures has something cut out."""
    for index in range(min(_LOOKED_AT, len(source))):
        try:
            if cut_out(source.image_bytes(index)) is not None:
                return Path("alpha")
        except (OSError, UndecodableError):
            continue  # it is met again, and listed, when pictures are read
    return None


def cut_out(data: bytes) -> Bools | None:
    """[H, W] of what is opaque in an upright picture; None where nothing, or all of it, is."""
    with reasons():
        image = open_pillow(data, MAX_PIXELS)
        if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
            return None
        image.load()
        mask = np.asarray(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")) >= _OPAQUE
    return mask if mask.any() and not mask.all() else None
