"""What the encoders look at: the pictures, the numbers against masks, and in words which of them is above which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import plotly.graph_objects as go

from selfsight.reporting import words
from selfsight.reporting.figures import banded_dots, inert
from selfsight.reporting.folder import ResultsFolder
from selfsight.reporting.palette import UNKNOWN, encoder_colours
from selfsight.reporting.pictures import Pictures
from selfsight.reporting.tables import Cell, Row, Table
from selfsight.results import FLOOR, MaskDifference, MaskScore, Results, Segmentation

_SHADES = {"centred box": "#BBA789", "whole picture": "#6E5B44"}
_MAIN = "jaccard_60"
_WORDS = ((1, "above"), (-1, "below"), (0, "not told apart from"))


class Measure(NamedTuple):
    """A row of the table: `method` is one of the results, or empty for the own map of each encoder."""

    method: str
    metric: str

    @property
    def name(self) -> str:
        return words.metric_name(self.metric)

    @property
    def how(self) -> str:
        return words.method_name(self.method)


@dataclass(frozen=True)
class Tile:
    """One overlay with the number under it."""

    picture: int
    caption: str


class Finding(NamedTuple):
    """A sentence that begins with the name of its encoder."""

    encoder: str
    text: str


def measures(found: Segmentation) -> list[Measure]:
    """The own maps first, then the best head, the objects, and maps that are nobody's own."""
    there = dict.fromkeys((s.method, s.metric) for s in found.scores if s.method != FLOOR)
    own = [Measure("", metric) for metric in dict.fromkeys(metric for _, metric in there) if metric.startswith("jaccard")]
    rest = [Measure(*pair) for pair in there]
    heads = [m for m in rest if m.method == "heads"]
    objects = [m for m in rest if not m.metric.startswith("jaccard")]
    maps = [m for m in rest if m not in heads and m not in objects and _is_more(found, m)]
    return [*own, *heads, *objects, *maps]


def _is_more(found: Segmentation, measure: Measure) -> bool:
    """Whether some encoder has this map besides its own."""
    return any(s.method == measure.method != found.own.get(s.encoder) for s in found.scores)


def names(found: Segmentation) -> list[str]:
    """Encoders, then the floors that look at nothing."""
    return [*found.own, *dict.fromkeys(s.encoder for s in found.scores if s.method == FLOOR)]


def colours_of(results: Results) -> dict[str, str]:
    return encoder_colours(results) | _SHADES


def table(found: Segmentation) -> Table:
    """Measures down, encoders and floors across."""
    rows = [
        Row(measure.name, [_cell(found.score(name, *measure)) for name in names(found)], note=measure.how)
        for measure in measures(found)
    ]
    return Table(["measure", *names(found)], rows)


def _cell(score: MaskScore | None) -> Cell:
    return Cell(words.number(score.value), words.interval(score)) if score else Cell(words.NONE)


def differences(results: Results, found: Segmentation) -> Table:
    """Every paired difference."""
    colours, rows = colours_of(results), []
    for d in found.differences:
        by = dict.fromkeys(words.method_name(m) for m in (d.method_b, d.method_a) if m != FLOOR)
        cells = [
            Cell(words.metric_name(d.metric), " against ".join(by)),
            Cell(words.signed(d.difference)),
            Cell(f"{words.signed(d.low)} to {words.signed(d.high)}"),
            Cell(words.number(d.n, 0)),
        ]
        rows.append(Row(d.b, cells, colours.get(d.b, UNKNOWN), f"minus {d.a}"))
    return Table(["b minus a", "measure", "difference", "95 % interval", "pictures"], rows)


def plot(results: Results, found: Segmentation) -> go.Figure:
    """Dots with intervals: a band of rows a measure, one row an encoder or floor."""
    shown = [m for m in measures(found) if m.method in ("", "heads") or m.metric == "corloc"]
    colours = colours_of(results)
    dots = [
        (name, colours.get(name, UNKNOWN), {row: s for row, m in enumerate(shown) if (s := found.score(name, *m))})
        for name in names(found)
    ]
    return banded_dots(dots, [f"{m.name}<br>{inert(m.how)}" for m in shown], "% (bars: 95 % interval)")


def findings(found: Segmentation, floors: set[str]) -> list[Finding]:
    """For each encoder that is no floor, what its own map is above and below, by the intervals of paired differences."""
    said = []
    for encoder, method in found.own.items():
        pairs = [_seen_from(encoder, d) for d in found.differences if d.metric == _MAIN and _is_own(encoder, d, found)]
        score = found.score(encoder, "", _MAIN)
        if encoder in floors or not pairs or score is None:
            continue
        named = ((word, [other for other, sign in pairs if sign == wanted]) for wanted, word in _WORDS)
        places = "; ".join(f"{word} {_listed(others)}" for word, others in named if others)
        learnt = "".join(_learnt(encoder, found))
        said.append(
            Finding(encoder, f"({words.method_name(method)}, Jaccard {words.number(score.value)} %) is {places}.{learnt}")
        )
    return said


def _learnt(encoder: str, found: Segmentation) -> str:
    """What its best heads gained over those of its own untrained copy, by the protocol of the paper."""
    gains = [
        f"{words.metric_name(d.metric)} {words.signed(d.difference)} ({words.signed(d.low)} to {words.signed(d.high)})"
        for d in found.differences
        if (d.a, d.b, d.method_b) == (f"{encoder}?weights=init", encoder, "heads")
    ]
    return f" Best head, in points above that of its own untrained copy: {', '.join(gains)}." if gains else ""


def _is_own(encoder: str, d: MaskDifference, found: Segmentation) -> bool:
    sides = ((d.a, d.method_a), (d.b, d.method_b))
    return encoder in (d.a, d.b) and all(method == found.own.get(name, FLOOR) for name, method in sides)


def _seen_from(encoder: str, d: MaskDifference) -> tuple[str, int]:
    """The other one, and whether this encoder is above it (1), below it (-1) or neither (0)."""
    sign = 1 if d.low > 0 else -1 if d.high < 0 else 0
    return (d.a, sign) if d.b == encoder else (d.b, -sign)


def _listed(names: list[str]) -> str:
    named = [f"a {name}" if name == "centred box" else f"the {name}" if name == "whole picture" else name for name in names]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def rows(folder: ResultsFolder, pictures: Pictures) -> list[list[Tile]]:
    """A row a picture: what is there, then each encoder; those without a picture are left out."""
    found = folder.results.segmentation
    if found is None:
        return []
    by_key: dict[str, dict[str, Tile]] = {}
    for look in folder.looks:
        caption = words.number(100 * look.value) if look.encoder else ""
        by_key.setdefault(look.key, {})[look.encoder] = Tile(pictures.number(look.name), caption)
    columns = ["", *found.own]
    return [[tiles[column] for column in columns] for tiles in by_key.values() if all(column in tiles for column in columns)]
