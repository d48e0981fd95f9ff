"""A contact sheet of what was found: pictures with their objects drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from selfsight.attention.naming import label_of
from selfsight.attention.objects.colours import COLOURS
from selfsight.attention.objects.looking import Row, mask_of
from selfsight.sheets import GAP, GROUND, INK, LINE, MARGIN, TEXT, TITLE, Bytes, font, short, write

SHOWN = 24
_ACROSS, _CELL = 6, 256
_SHARE = 0.45
"""Of its colour in a mask."""


class Drawn(NamedTuple):
    """A picture [H, W, 3] and the row of what was found in it."""

    picture: Bytes
    row: Row


def objects_sheet(found: Sequence[Drawn], title: str, note: str) -> Image.Image:
    """Six pictures a line, the objects of each in colours with their boxes and scores, in order."""
    lines = -(-len(found) // _ACROSS)
    width = 2 * MARGIN + min(_ACROSS, max(3, len(found))) * (_CELL + GAP) - GAP
    step, top = _CELL + 2 * LINE + 2 * GAP, MARGIN + TITLE + 2 * GAP + LINE + GAP
    sheet = Image.new("RGB", (width, top + lines * step - GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    inside = width - 2 * MARGIN
    pen.text((MARGIN, MARGIN - 4), short(label_of(title), inside, TITLE), INK, font(TITLE))
    write(pen, (MARGIN, MARGIN + TITLE + GAP - 2), [short(note, inside, TEXT)])
    for number, each in enumerate(found):
        left, y = MARGIN + number % _ACROSS * (_CELL + GAP), top + number // _ACROSS * step
        picture = drawn(each.picture, each.row, _CELL)
        sheet.paste(picture, (left + (_CELL - picture.width) // 2, y + (_CELL - picture.height) // 2))
        pen.text((left, y + _CELL + 3), short(label_of(each.row["key"]), _CELL, TEXT), INK, font(TEXT))
        scores = "  ".join(f"{each['score']:.2f}" for each in each.row["objects"])
        write(pen, (left, y + _CELL + 3 + LINE), [short(scores or "no object", _CELL, TEXT)])
    return sheet


def drawn(picture: Bytes, row: Row, side: int) -> Image.Image:
    """A picture within a square, its objects laid on it in their colours, the first above, and its boxes."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    values = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), dtype=np.float32).copy()
    objects = list(zip(row["objects"], np.resize(COLOURS, (len(row["objects"]), 3)).tolist(), strict=True))[::-1]
    for each, colour in objects:
        cover = Image.fromarray(mask_of(each).astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
        share = _SHARE * np.asarray(cover, dtype=np.float32)[..., None] / 255
        values += share * (np.array(colour) - values)
    image = Image.fromarray(np.rint(values).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for each, colour in objects:
        left, top, width, height = (round(number * scale) for number in each["bbox"])
        pen.rectangle((left, top, max(left, left + width - 1), max(top, top + height - 1)), outline=tuple(colour), width=2)
    return image
