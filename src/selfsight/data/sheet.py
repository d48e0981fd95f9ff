"""A contact sheet: images, where their views are cut, and the views as the network gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from selfsight.data.decode import Pixels, UndecodableError
from selfsight.data.draws import Indices
from selfsight.data.multicrop import finish_views, plan_views
from selfsight.data.opening import OpenedImage
from selfsight.data.views import Photometry, ViewSettings
from selfsight.sheets import (
    BLUE,
    GAP,
    GROUND,
    INK,
    LINE,
    MARGIN,
    TEXT,
    TITLE,
    VERMILION,
    Bytes,
    Colour,
    Place,
    fitted,
    font,
    short,
    wrapped,
    write,
)

MAX_WIDTH, _MIN_WIDTH = 2400, 800
_GLOBAL, _LOCAL = 224, 104
"""About how large views are shown; smaller ones by a whole multiple of their pixels."""
_FRAME = 3
_GLOBAL_COLOURS: tuple[Colour, Colour] = (VERMILION, BLUE)


class SheetRow(NamedTuple):
    """One image [H, W, 3] and its views: boxes [views, 4] in its pixels, what was drawn, pixels [S, S, 3] of each."""

    key: str
    image: Bytes
    boxes: Indices
    draws: list[Photometry]
    views: list[Bytes]


def sheet_row(key: str, image: OpenedImage, sample: int, seed: int, settings: ViewSettings) -> SheetRow:
    """The views of the first epoch. Of images of many channels the first three are seen. Raises `UndecodableError`."""
    pixels = image.pixels()
    plan = plan_views([image], [sample], seed, 0, settings)
    made = finish_views([image], plan, settings)
    if made.failed:
        raise UndecodableError(made.failed[0])
    views = [_seen(view, settings) for kind in made.crops for view in kind]
    return SheetRow(key, rgb(pixels), plan.boxes[:, 0], plan.draws, views)


def draw_sheet(rows: Sequence[SheetRow], settings: ViewSettings, title: str, notes: Sequence[str]) -> Image.Image:
    """One row an image: the whole with the boxes of its crops, the global views, the local ones. At most 2400 pixels wide."""
    at = _Layout(rows, settings)
    inside = at.width - 2 * MARGIN
    head = [line for note in notes for line in wrapped(note.split(" "), inside, " ")]
    top = MARGIN + TITLE + 2 * GAP + len(head) * (LINE + 2)
    first = top + LINE + GAP
    sheet = Image.new("RGB", (at.width, first + len(rows) * (at.height + 2 * GAP) - 2 * GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), short(title, inside, TITLE), INK, font(TITLE))
    write(pen, (MARGIN, MARGIN + TITLE + GAP - 2), head, LINE + 2)
    for x, heading, colour in at.headings(settings):
        pen.text((x, top), heading, colour, font(TEXT + 1))
    for number, row in enumerate(rows):
        _draw_row(sheet, row, at, first + number * (at.height + 2 * GAP), settings)
    return sheet


def described(settings: ViewSettings) -> list[str]:
    """What the settings say, in words."""
    s = settings
    locals_ = f", {s.local_count} local ones of {s.local_size} px from {_span(s.local_scale)} of it" if s.local_count else ""
    more = {
        f"vertical flip {s.vertical_flip:g}": s.vertical_flip,
        "turned by quarters": s.quarter_turns,
        f"stains up to {s.stain:g}": s.stain,
    }
    colour = {"brightness": s.brightness, "contrast": s.contrast, "saturation": s.saturation, "hue": s.hue}
    strengths = ", ".join(f"{name} {value:g}" for name, value in colour.items() if value)
    blur = f"{' / '.join(f'{p:g}' for p in s.blur)} of global 1 / global 2 / local views, sigma {_span(s.blur_sigma)} px"
    return [
        f"2 global views of {s.global_size} px from {_span(s.global_scale)} of the image{locals_}",
        ", ".join([f"flip {s.flip:g}", *(words for words, done in more.items() if done)])
        + f", colour {s.jitter:g} ({strengths or 'nothing'}), grey {s.grey:g}",
        (f"blur {blur}" if any(s.blur) else "no blur")
        + (f", solarise {s.solarize:g} of global 2" if s.solarize else ", no solarising"),
    ]


def _span(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g} to {pair[1]:g}"


def changes(draws: Photometry, row: int = 0) -> list[str]:
    """What was done to one view, in a few words each."""
    jittered = any(getattr(draws, name)[row] != 1 for name in ("brightness", "contrast", "saturation")) or draws.hue[row] != 0
    found = {
        f"{90 * int(draws.quarters[row])}\N{DEGREE SIGN}": draws.quarters[row] > 0,
        "flip": draws.flip[row],
        "vertical flip": draws.vertical[row],
        "colour": jittered,
        "grey": draws.grey[row],
        f"blur {draws.sigma[row]:.1f}": draws.sigma[row] > 0,
        "solarise": draws.solarize[row],
    }
    # Stains are changed in every view or in none, so they are worth a word only where nothing else is.
    return [words for words, done in found.items() if done] or ["stains" if draws.stain[row].any() else "unchanged"]


class _Layout:
    """Where everything of a row stands, in pixels of the sheet."""

    def __init__(self, rows: Sequence[SheetRow], settings: ViewSettings) -> None:
        self.whole, self.local = _shown(settings.global_size, _GLOBAL), _shown(settings.local_size, _LOCAL)
        step = self.whole + 2 * _FRAME + 2 * GAP
        left = MARGIN + max(fitted(row.image, self.whole).width for row in rows) + 2 * GAP
        self.globals = (left, left + step)
        self.locals = left + 2 * step
        columns = (MAX_WIDTH - MARGIN - self.locals + GAP) // (self.local + GAP)
        columns = min(columns, -(-settings.local_count // 2))
        self.columns, self.count = columns, min(settings.local_count, 2 * columns)
        self.width = max(_MIN_WIDTH, self.locals + columns * (self.local + GAP) - GAP + MARGIN)
        high = [
            max((len(wrapped(changes(draws), size)) for row in rows for draws in row.draws[views]), default=0)
            for size, views in ((self.whole, slice(2)), (self.local, slice(2, 2 + self.count)))
        ]
        self.step = self.local + _FRAME + high[1] * LINE + GAP
        below = max(2, high[0]) * LINE + 2 * _FRAME
        self.height = max(self.whole + below, 2 * self.step - GAP if self.count > 1 else 0)

    def local_at(self, number: int) -> Place:
        """Left and top of a local view, in a row whose top is 0."""
        return self.locals + number % self.columns * (self.local + GAP), number // self.columns * self.step

    def headings(self, settings: ViewSettings) -> list[tuple[int, str, Colour]]:
        found = [(MARGIN, "image and crops", INK)]
        for number, (x, colour) in enumerate(zip(self.globals, _GLOBAL_COLOURS, strict=True)):
            found.append((x, f"global view {number + 1}", colour))
        if self.count:
            left_out = f", the first {self.count} of {settings.local_count}" if self.count < settings.local_count else ""
            found.append((self.locals, f"local views{left_out}", INK))
        return found


def _draw_row(sheet: Image.Image, row: SheetRow, at: _Layout, top: int, settings: ViewSettings) -> None:
    pen = ImageDraw.Draw(sheet)
    picture = fitted(row.image, at.whole)
    sheet.paste(_boxed(picture, row, at.count), (MARGIN, top + _FRAME))
    room = at.globals[0] - MARGIN - 2 * GAP
    size = f"{row.image.shape[1]} x {row.image.shape[0]}"
    write(pen, (MARGIN, top + picture.height + 2 * _FRAME + 2), [short(row.key, room, TEXT), size])
    for view, (x, colour) in enumerate(zip(at.globals, _GLOBAL_COLOURS, strict=True)):
        pen.rectangle((x, top, x + at.whole + 2 * _FRAME - 1, top + at.whole + 2 * _FRAME - 1), colour)
        sheet.paste(_resized(row.views[view], at.whole), (x + _FRAME, top + _FRAME))
        write(pen, (x, top + at.whole + 2 * _FRAME + 2), wrapped(changes(row.draws[view]), at.whole))
    for number in range(at.count):
        x, y = at.local_at(number)
        sheet.paste(_resized(row.views[2 + number], at.local), (x, top + y))
        write(pen, (x, top + y + at.local + _FRAME), wrapped(changes(row.draws[2 + number]), at.local))


def _boxed(picture: Image.Image, row: SheetRow, count: int) -> Image.Image:
    """The picture with the boxes of its crops: local ones thin, global ones in their colours above them."""
    picture = picture.copy()
    pen = ImageDraw.Draw(picture)
    height, width = row.image.shape[:2]
    scale = np.array([picture.width / width, picture.height / height] * 2)
    boxes = np.rint(row.boxes * scale).astype(int) - [0, 0, 1, 1]
    for box in boxes[2 : 2 + count].tolist():
        left, top, right, bottom = box
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=INK)
        pen.rectangle(box, outline=(255, 255, 255))
    for box, colour in zip(boxes[:2].tolist(), _GLOBAL_COLOURS, strict=True):
        pen.rectangle(box, outline=colour, width=_FRAME)
    return picture


def _resized(view: Bytes, size: int) -> Image.Image:
    how = Image.Resampling.NEAREST if size >= len(view) else Image.Resampling.LANCZOS
    return Image.fromarray(view).resize((size, size), how)


def _shown(size: int, about: int) -> int:
    """The side at which a view of `size` pixels is shown: its own, a multiple of it, or less where it is large."""
    return size * max(1, about // size) if size <= 1.5 * about else about


def _seen(view: Tensor, settings: ViewSettings) -> Bytes:
    """A finished view [C, S, S] without its normalisation."""
    values = view.permute(1, 2, 0).numpy() * np.array(settings.std) + np.array(settings.mean)
    return rgb((values * 255).astype(np.float32))


def rgb(pixels: Pixels) -> Bytes:
    """Three of the channels: the first three, grey of one, and black for the third of two."""
    channels = pixels.shape[2]
    if channels == 1:
        pixels = pixels.repeat(3, axis=2)
    elif channels == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)
    return np.clip(np.rint(pixels[:, :, :3]), 0, 255).astype(np.uint8)
