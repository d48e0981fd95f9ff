"""A picture and its maps side by side: a row of a contact sheet, or a frame of a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from selfsight.attention.colouring import heat
from selfsight.attention.kinds import MAPS
from selfsight.attention.naming import label_of
from selfsight.sheets import GAP, GROUND, INK, LINE, MARGIN, TEXT, TITLE, font, short, wrapped, write

CELL = 200
"""Width of the cell in which a picture stands in a sheet, and its height at most."""
_FILM_HEIGHT, _FILM_WIDTH = 320, 1920
_MIN_WIDTH = 640
_BETWEEN = 4

Size = tuple[int, int]


def sheet_strip(picture: Image.Image, drawn: Mapping[str, Image.Image]) -> Image.Image:
    """The picture and its maps, each in the middle of a cell as high as the picture is."""
    scale = CELL / max(picture.size)
    return _strip([picture, *drawn.values()], (CELL, max(1, round(picture.height * scale))), GAP)


def film_strip(picture: Image.Image, drawn: Mapping[str, Image.Image]) -> Image.Image:
    """The picture and its maps, with a word on each; its sides are even, as films want them."""
    images = [picture, *drawn.values()]
    across = (_FILM_WIDTH - _BETWEEN) // len(images) - _BETWEEN
    scale = min(_FILM_HEIGHT / picture.height, across / picture.width)
    cell = max(16, round(picture.width * scale)), max(16, round(picture.height * scale))
    strip = _strip(images, cell, _BETWEEN)
    head = TEXT + 2 * _BETWEEN
    frame = Image.new("RGB", (-(-strip.width // 2) * 2, -(-(strip.height + head) // 2) * 2), GROUND)
    frame.paste(strip, (0, head))
    for number, words in enumerate(captions(drawn)):
        place = number * (cell[0] + _BETWEEN), _BETWEEN // 2
        ImageDraw.Draw(frame).text(place, _beginning(words, cell[0]), INK, font(TEXT))
    return frame


def captions(names: Sequence[str] | Mapping[str, object]) -> list[str]:
    """What is written above the picture and each of its maps."""
    return ["picture", *(MAPS[name].says for name in names)]


def draw_sheet(
    rows: Sequence[tuple[str, Path]], names: Sequence[str], title: str, notes: Sequence[str], more: int = 0
) -> Image.Image:
    """A row a picture: its name above, then what `sheet_strip` made of it, read from its file. `more` are not shown."""
    sizes = [_size_of(path) for _, path in rows]
    width = max(_MIN_WIDTH, sizes[0][0] + 2 * MARGIN)
    inside = width - 2 * MARGIN
    notes = [*notes, *([_left_out(more)] if more else [])]
    head = [line for note in notes for line in wrapped(note.split(" "), inside, " ")]
    heads = [wrapped(words.split(" "), CELL, " ") for words in captions(names)]
    scale = MARGIN + TITLE + GAP + len(head) * (LINE + 2)
    top = scale + GAP + (LINE + GAP if any(MAPS[name].draws == "heat" for name in names) else 0)
    body = top + max(map(len, heads)) * LINE + GAP
    tops = [body, *(body + below for below in accumulate(height + LINE + 2 * GAP for _, height in sizes))]
    sheet = Image.new("RGB", (width, tops[-1] - 2 * GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), short(label_of(title), inside, TITLE), INK, font(TITLE))
    write(pen, (MARGIN, MARGIN + TITLE + GAP - 2), head, LINE + 2)
    if top > scale + GAP:
        _draw_scale(sheet, scale)
    for number, lines in enumerate(heads):
        for line, words in enumerate(lines):
            pen.text((MARGIN + number * (CELL + GAP), top + line * LINE), words, INK, font(TEXT))
    for (key, path), at in zip(rows, tops, strict=False):
        with Image.open(path) as strip:
            sheet.paste(strip, (MARGIN, at + LINE + 2))
        write(pen, (MARGIN, at - 2), [short(label_of(key), inside, TEXT)])
    return sheet


def _left_out(more: int) -> str:
    return f"{more} more pictures are not shown here" if more > 1 else "1 more picture is not shown here"


def _draw_scale(sheet: Image.Image, top: int) -> None:
    """What the colours of heat maps say, in a line."""
    first, last = "least", "greatest, in each map"
    left = MARGIN + round(font(TEXT).getlength(first)) + GAP
    colours = heat(np.linspace(0, 1, CELL)[None].repeat(LINE - 4, axis=0))
    sheet.paste(Image.fromarray(colours), (left, top + 3))
    write(ImageDraw.Draw(sheet), (MARGIN, top), [first])
    write(ImageDraw.Draw(sheet), (left + CELL + GAP, top), [last])


def _size_of(path: Path) -> Size:
    with Image.open(path) as strip:
        return strip.size


def _strip(images: Sequence[Image.Image], cell: Size, gap: int) -> Image.Image:
    width, height = cell
    strip = Image.new("RGB", (len(images) * (width + gap) - gap, height), GROUND)
    for number, image in enumerate(images):
        small = _within(image, cell)
        left = number * (width + gap) + (width - small.width) // 2
        strip.paste(small, (left, (height - small.height) // 2))
    return strip


def _within(image: Image.Image, cell: Size) -> Image.Image:
    scale = min(cell[0] / image.width, cell[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _beginning(text: str, width: int) -> str:
    while text and font(TEXT).getlength(text) > width:
        text = text[:-1]
    return text
