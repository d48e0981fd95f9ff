"""What contact sheets are made of: sizes, colours, and text that is cut or wrapped to its room."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Bytes: TypeAlias = npt.NDArray[np.uint8]
Place: TypeAlias = tuple[int, int]
Colour: TypeAlias = tuple[int, int, int]

GAP, MARGIN = 10, 24
TEXT, LINE, TITLE = 13, 16, 22
GROUND, INK, PALE = (228, 228, 228), (24, 24, 24), (84, 84, 84)
VERMILION, BLUE = (213, 94, 0), (0, 114, 178)
"""Of Okabe and Ito, which the colour-blind tell apart."""


def wrapped(parts: Sequence[str], width: int, between: str = ", ") -> list[str]:
    """Lines of parts that are not cut; a part that is too long has a line of its own."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines else part
        if lines and font(TEXT).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def fitted(image: Bytes, height: int, aspect: float = 1.5) -> Image.Image:
    """An image within `height` and `aspect` times that in width; a small one enlarged by a whole number."""
    scale = min(height / image.shape[0], aspect * height / image.shape[1])
    scale = float(int(scale)) if scale >= 1 else scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return Image.fromarray(image).resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def write(pen: ImageDraw.ImageDraw, at: Place, lines: Sequence[str], step: int = LINE) -> None:
    for number, line in enumerate(lines):
        pen.text((at[0], at[1] + number * step), line, PALE, font(TEXT))


def short(text: str, width: int, size: int) -> str:
    """The end of a text that is too long, which is where names differ; letters that the font lacks without their accents."""
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c if c.isascii() else "?" for c in text if not unicodedata.combining(c))
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength("..." + text) > width:
        text = text[1:]
    return "..." + text


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
