"""TIFFs that Pillow does not read, or reads wrongly: more than 8 bits a band, any number of bands.

Only pages are looked at, never the series that tifffile makes of the metadata of microscopes: those may name other files.
"""

from __future__ import annotations

import ctypes
import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, _imaging

from selfsight.data.orientation import ORIENTATION, upright, valid
from selfsight.data.undecodable import UndecodableError, check_channels, check_size

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, RGB = range(3)
_GREY = (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
_UNKNOWN, PREMULTIPLIED, STRAIGHT = range(3)
_PICTURES_IN_TIFF = ("JPEG", "JPEG2000", "WEBP", "PNG")


class Bands(NamedTuple):
    """Values [height, width, bands] as the file holds them, upright; `white` is the largest that so many bits can say."""

    values: npt.NDArray[Any]
    white: float | None


class Page(NamedTuple):
    """What the first page says of itself; `alpha` is 0 where an extra sample is just another band."""

    samples: int
    bytes_a_sample: int
    photometric: int
    alpha: int

    @property
    def grey(self) -> bool:
        return self.photometric in _GREY and self.samples == 1

    @property
    def picture(self) -> bool:
        """Colours, a palette, grey with alpha: what is more than bands."""
        return self.samples <= 4 and (self.photometric not in _GREY or self.alpha > 0)


def is_tiff(data: bytes) -> bool:
    return data.startswith(_SIGNATURES)


@functools.cache
def quieten_libtiff() -> None:
    """Pillow's libtiff writes to the terminal whatever it finds wrong, line upon line; Pillow itself raises what matters.

    There is no way to say so in Pillow. Where its library does not show these two functions the lines stay.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):
        return


def first_page(data: bytes) -> Page:
    with _opened(data) as file:
        page = file.pages.first
        size = 1 if page.dtype is None else page.dtype.itemsize
        return Page(page.samplesperpixel, size, int(page.photometric), max(map(int, page.extrasamples), default=0))


def read_bands(data: bytes, count: int, max_pixels: int) -> Bands:
    """The bands of the first page or, where it holds one, those of all pages like it. Errors are those of tifffile."""
    with _opened(data) as file:
        pages = _pages(file, count)
        for page in pages:
            _check_memory(page, data, max_pixels)
        planes = [_plane(page) for page in pages]
        values = np.stack([p[:, :, 0] for p in planes]) if _rows(pages, count) else np.concatenate(planes, axis=2)
        turn = valid(pages[0].tags.valueof(ORIENTATION))
        bits = pages[0].bitspersample
        white = float(2**bits - 1) if isinstance(bits, int) and values.dtype.kind == "u" else None
        if pages[0].photometric == _WHITE_IS_ZERO and values.dtype.kind in "ub":
            values = ~values if white is None else (int(white) - values).astype(values.dtype)
    return Bands(upright(values, turn), white)


@contextmanager
def _opened(data: bytes) -> Iterator[tifffile.TiffFile]:
    try:
        with tifffile.TiffFile(io.BytesIO(data), is_ome=False, is_mmstack=False, is_ndtiff=False) as file:
            if not len(file.pages):
                raise UndecodableError("a TIFF without pages")
            yield file
    except tifffile.TiffFileError as error:
        raise UndecodableError(str(error)) from None


def _pages(file: tifffile.TiffFile, count: int) -> list[tifffile.TiffPage]:
    first = file.pages.first
    if first.samplesperpixel > 1 or count == 1:
        check_channels(first.samplesperpixel, count)
        return [first]
    same = [page for page in file.pages if isinstance(page, tifffile.TiffPage) and _kind(page) == _kind(first)]
    if not _rows(same, count):
        check_channels(len(same), count)
    return same


def _rows(pages: list[tifffile.TiffPage], count: int) -> bool:
    """Whether this is an array [height, width, bands] that was stored without saying so: a page [width, bands] for each row."""
    return len(pages) not in (1, count) and pages[0].samplesperpixel == 1 and pages[0].imagewidth == count


def _kind(page: tifffile.TiffPage) -> tuple[object, ...]:
    return page.shape, page.dtype, page.samplesperpixel


def _plane(page: tifffile.TiffPage) -> npt.NDArray[Any]:
    """[height, width, samples]"""
    values = page.asarray(maxworkers=1)
    if page.axes == "SYX":
        return np.moveaxis(values, 0, 2)
    if page.axes not in ("YX", "YXS"):
        raise UndecodableError(f"axes {page.axes}, not height, width and bands")
    return values.reshape(*values.shape[:2], page.samplesperpixel)


def _check_memory(page: tifffile.TiffPage, data: bytes, max_pixels: int) -> None:
    """Neither the image, nor a tile, nor a compressed picture within it may claim more pixels than the limit."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.is_tiled:
        check_size(page.tilewidth, page.tilelength, max_pixels)
    if page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS:
        most = max(page.imagewidth * page.imagelength, page.tilewidth * page.tilelength)
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            with Image.open(io.BytesIO(data[start : start + length]), formats=_PICTURES_IN_TIFF) as picture:
                check_size(*picture.size, most)
