"""Contact sheets of what was found: a query and its neighbours, or pairs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from selfsight.sheets import GAP, GROUND, INK, LINE, MARGIN, TEXT, TITLE, Place, font, short, wrapped, write

CELL, QUERY = 128, 176
"""Sides of the squares in which pictures stand."""
_ACROSS, NEIGHBOURS = 10, 30
"""In a line, and of a query at most."""
_PAIRS_ACROSS = 4
_FRAME, _EMPTY = (0, 114, 178), (206, 206, 206)
_MIN_WIDTH = 640


class Shown(NamedTuple):
    """A picture within its square, or None where it cannot be had, and what is written under it, the most telling first."""

    picture: Image.Image | None
    lines: tuple[str, ...]


def neighbours_sheet(rows: Sequence[tuple[Shown, Sequence[Shown]]], title: str, notes: Sequence[str]) -> Image.Image:
    """A row a query: it stands left in a frame, its neighbours right of it, the nearest first, ten in a line."""
    most = max(min(len(found), _ACROSS) for _, found in rows)
    left = MARGIN + QUERY + 3 * GAP
    heights = [_row_height(query, found[:NEIGHBOURS]) for query, found in rows]
    sheet, pen, top = _sheet(left + most * (CELL + GAP) - GAP + MARGIN, sum(heights) + 2 * GAP * (len(rows) - 1), title, notes)
    for (query, found), height in zip(rows, heights, strict=True):
        _draw(sheet, query, (MARGIN, top), QUERY)
        pen.rectangle((MARGIN - 3, top - 3, MARGIN + QUERY + 2, top + QUERY + 2), outline=_FRAME, width=3)
        y = top
        for start in range(0, min(len(found), NEIGHBOURS), _ACROSS):
            line = found[start : min(start + _ACROSS, NEIGHBOURS)]
            for column, each in enumerate(line):
                _draw(sheet, each, (left + column * (CELL + GAP), y), CELL)
            y += _height(line, CELL) + GAP
        top += height + 2 * GAP
    return sheet


def pairs_sheet(pairs: Sequence[tuple[Shown, Shown]], title: str, notes: Sequence[str]) -> Image.Image:
    """Both pictures of a pair side by side, four pairs in a line, as they come."""
    lines = [pairs[start : start + _PAIRS_ACROSS] for start in range(0, len(pairs), _PAIRS_ACROSS)]
    heights = [_height([each for pair in line for each in pair], CELL) for line in lines]
    step = 2 * CELL + 4 + 3 * GAP
    width = 2 * MARGIN + len(lines[0]) * step - 3 * GAP
    sheet, _, top = _sheet(width, sum(heights) + 2 * GAP * (len(lines) - 1), title, notes)
    for line, height in zip(lines, heights, strict=True):
        for column, (first, second) in enumerate(line):
            _draw(sheet, first, (MARGIN + column * step, top), CELL)
            _draw(sheet, second, (MARGIN + column * step + CELL + 4, top), CELL)
        top += height + 2 * GAP
    return sheet


def _sheet(width: int, height: int, title: str, notes: Sequence[str]) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """An empty sheet with its head, and where its body of `height` begins."""
    width = max(width, _MIN_WIDTH)
    inside = width - 2 * MARGIN
    head = [line for note in notes for line in wrapped(note.split(" "), inside, " ")]
    top = MARGIN + TITLE + 2 * GAP + len(head) * (LINE + 2) + GAP
    sheet = Image.new("RGB", (width, top + height + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), short(title, inside, TITLE), INK, font(TITLE))
    write(pen, (MARGIN, MARGIN + TITLE + GAP - 2), head, LINE + 2)
    return sheet, pen, top


def _row_height(query: Shown, found: Sequence[Shown]) -> int:
    lines = [found[start : start + _ACROSS] for start in range(0, len(found), _ACROSS)]
    return max(_height([query], QUERY), sum(_height(line, CELL) for line in lines) + GAP * (len(lines) - 1))


def _height(cells: Sequence[Shown], side: int) -> int:
    return side + 4 + LINE * max(len(cell.lines) for cell in cells)


def _draw(sheet: Image.Image, cell: Shown, at: Place, side: int) -> None:
    """The picture in the middle of a square, whole; its lines under it, the first in the stronger ink."""
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((*at, at[0] + side - 1, at[1] + side - 1), _EMPTY)
    if cell.picture is None:
        pen.text((at[0] + side // 2, at[1] + side // 2), "no picture", INK, font(TEXT), anchor="mm")
    else:
        sheet.paste(cell.picture, (at[0] + (side - cell.picture.width) // 2, at[1] + (side - cell.picture.height) // 2))
    lines = [short(line, side, TEXT) for line in cell.lines]
    pen.text((at[0], at[1] + side + 3), lines[0], INK, font(TEXT))
    write(pen, (at[0], at[1] + side + 3 + LINE), lines[1:])
