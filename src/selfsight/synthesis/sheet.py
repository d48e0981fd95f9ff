"""What a set looks like: some pictures of each split with the outlines of their objects, and how its factors came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from selfsight.manifest import Manifest, decode_mask
from selfsight.masks import boundary
from selfsight.sheets import BLUE, GAP, GROUND, INK, LINE, MARGIN, PALE, TEXT, TITLE, VERMILION, fitted, font, short, write

_SIDE, _ACROSS = 128, 8
_PANEL, _PANELS, _BARS = (420, 120), 3, 28
_NAMES = 10


def contact_sheet(folder: Path, content: Manifest) -> Image.Image:
    """The first pictures of each split, two of each: as it is, and with its objects outlined."""
    rows = [list(islice(group, _ACROSS)) for _, group in groupby(content.samples, key=lambda row: row["split"])]
    things: dict[str, list[dict[str, Any]]] = {}
    wanted = {row["key"] for row in (row for shown in rows for row in shown)}
    for thing in content.objects:
        if thing["sample"] in wanted:
            things.setdefault(thing["sample"], []).append(thing)
    high = 2 * (_SIDE + 4) + LINE + 2 * GAP
    width = 2 * MARGIN + _ACROSS * (_SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + TITLE + GAP + len(rows) * (high + LINE)), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), short(content.info.name, width - 2 * MARGIN, TITLE), INK, font(TITLE))
    for number, shown in enumerate(rows):
        top = MARGIN + TITLE + GAP + number * (high + LINE)
        split, total = shown[0]["split"], sum(row["split"] == shown[0]["split"] for row in content.samples)
        pen.text((MARGIN, top), f"{split}, {total} pictures", INK, font(TEXT + 1))
        for place, row in enumerate(shown):
            at = MARGIN + place * (_SIDE + GAP), top + LINE + 4
            image = np.asarray(Image.open(folder / row["path"]).convert("RGB"))
            sheet.paste(_boxed(image), at)
            sheet.paste(_boxed(_outlined(image, things.get(row["key"], []))), (at[0], at[1] + _SIDE + 4))
            write(pen, (at[0], at[1] + 2 * (_SIDE + 4)), [short(_caption(row, content), _SIDE, TEXT)])
    return sheet


def _boxed(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    box = Image.new("RGB", (_SIDE, _SIDE), GROUND)
    box.paste(fitted(image, _SIDE, 1.0))
    return box


def _outlined(image: np.ndarray[Any, np.dtype[np.uint8]], things: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """Dimmed, with each object's edge in a colour that is seen on any ground."""
    image = image // 2 + 40
    for thing in things:
        mask = decode_mask(thing["mask"])
        image[mask] = np.minimum(255, image[mask].astype(np.uint16) * 2 - 80).astype(np.uint8)
        image[boundary(mask)] = VERMILION
    return image


def _caption(row: Mapping[str, Any], content: Manifest) -> str:
    label = None if row["label"] is None else content.info.classes[row["label"]]
    kind, _, factor = row["split"].partition(".")
    value = row.get(factor.split(".")[0]) if kind == "shift" else None
    told = [label, None if value is None else _told(value)]
    return ", ".join(one for one in told if one is not None) or "several classes"


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return Path(str(value)).name


class _Panel(NamedTuple):
    """Bars of the splits over common places, as shares of each; `ends` are written under them."""

    factor: str
    bars: dict[str, list[float]]
    ends: list[str]


def factor_sheet(content: Manifest) -> Image.Image:
    """How often each value of a factor came, in training (blue) and in the split that shifts it (vermilion)."""
    panels = [_panel(factor, content) for factor in _factors(content)]
    (width, height), rows = _PANEL, -(-len(panels) // _PANELS)
    step = height + 3 * LINE + 2 * GAP
    across = min(_PANELS, max(1, len(panels)))
    sheet = Image.new("RGB", (2 * MARGIN + across * (width + 2 * GAP), 2 * MARGIN + TITLE + GAP + rows * step), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), short(f"factors of {content.info.name}", sheet.width - 2 * MARGIN, TITLE), INK, font(TITLE))
    for number, panel in enumerate(panels):
        at = MARGIN + number % _PANELS * (width + 2 * GAP), MARGIN + TITLE + GAP + number // _PANELS * step
        _draw_panel(pen, panel, at)
    return sheet


def _factors(content: Manifest) -> list[str]:
    shifted = [split.split(".")[1] for split in content.info.splits if split.startswith("shift.")]
    known = set(content.samples[0]) if content.samples else set()
    return [factor for factor in dict.fromkeys([*content.info.factors, *shifted]) if factor in known]


def _panel(factor: str, content: Manifest) -> _Panel:
    shows = {split for split in content.info.splits if split == "train" or split.startswith(f"shift.{factor}")}
    values: dict[str, list[Any]] = {}
    for row in content.samples:
        if row["split"] in shows and row[factor] is not None:
            values.setdefault(row["split"], []).append(row[factor])
    values = dict(sorted(values.items(), reverse=True))
    every = [value for found in values.values() for value in found]
    if any(isinstance(value, str) for value in every):
        names = [name for name, _ in Counter(every).most_common(_NAMES)]
        bars = {split: [found.count(name) / len(found) for name in names] for split, found in values.items()}
        return _Panel(factor, bars, [_told(name) for name in names])
    edges = np.linspace(min(every), max(every) + 1e-9, _BARS + 1)
    bars = {split: (np.histogram(found, edges)[0] / len(found)).tolist() for split, found in values.items()}
    return _Panel(factor, bars, [f"{edges[0]:.3g}", f"{edges[-1]:.3g}"])


def _draw_panel(pen: ImageDraw.ImageDraw, panel: _Panel, at: tuple[int, int]) -> None:
    (left, top), (width, height) = at, _PANEL
    others = ", ".join(split for split in panel.bars if split != "train")
    pen.text((left, top), panel.factor, INK, font(TEXT + 1))
    beside = left + 8 + round(font(TEXT + 1).getlength(panel.factor))
    pen.text((beside, top + 1), short(others, left + width - beside, TEXT), VERMILION, font(TEXT))
    foot, highest = top + LINE + 4 + height, max((share for bars in panel.bars.values() for share in bars), default=1.0)
    pen.rectangle((left, top + LINE + 4, left + width, foot), fill=(246, 246, 246))
    for split, bars in panel.bars.items():
        step = width / len(bars)
        for number, share in enumerate(bars):
            if share:
                x = left + number * step + (0 if split == "train" else step / 4)
                box = (x + 1, foot - share / highest * (height - 4), x + (step if split == "train" else step / 2) - 1, foot)
                pen.rectangle(box, fill=BLUE if split == "train" else VERMILION)
    if len(panel.ends) == 2 and len(next(iter(panel.bars.values()))) == _BARS:
        pen.text((left, foot + 2), panel.ends[0], PALE, font(TEXT))
        pen.text((left + width, foot + 2), panel.ends[1], PALE, font(TEXT), anchor="ra")
    else:
        step = width / len(panel.ends)
        for number, name in enumerate(panel.ends):
            pen.text((left + number * step + 2, foot + 2), short(name, int(step) - 2, TEXT), PALE, font(TEXT))
