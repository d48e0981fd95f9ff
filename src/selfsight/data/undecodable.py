"""What makes bytes undecodable: damage, and more pixels than anybody asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decompressed."""

for _logger in ("PIL", "tifffile"):
    # What they find odd in a file they log line upon line, which without a handler would end up in the terminal.
    logging.getLogger(_logger).addHandler(logging.NullHandler())


class UndecodableError(Exception):
    """The bytes are no image that can be read; the text is the reason."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UndecodableError(f"{width}x{height} pixels")
    if width * height > max_pixels:
        raise UndecodableError(f"{width}x{height} pixels, more than the limit of {max_pixels}")


def check_channels(found: int, wanted: int) -> None:
    if found != wanted:
        raise UndecodableError(f"{found} channel{'s' if found > 1 else ''}, not {wanted}")


@contextmanager
def reasons() -> Iterator[None]:
    """Whatever a decoder raises on damaged data, as an `UndecodableError` of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; only what cannot be read counts here
            yield
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError("no known image format") from None
    except Image.DecompressionBombError as error:
        raise UndecodableError(str(error).partition(", could be")[0]) from None
    except Exception as error:
        # Decoders let anything through on damaged data: struct.error, KeyError, AssertionError, errors of each codec...
        lines = str(error).splitlines()
        raise UndecodableError(f"{lines[0][:150]}" if lines and lines[0].strip() else type(error).__name__) from None
