"""Where encoders stop seeing: the section on drawn sets, in which one factor at a time leaves what training shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from selfsight.reporting import words
from selfsight.reporting.tables import Cell, Row, Table
from selfsight.results import Results, Shift, ShiftGap, SliceScore

CLEAN = "clean"
SURE = 0.05
"""A difference is spoken of where its p, corrected by Holm, lies below."""
_SHOWN = 10
_FILE = re.compile(r"[^\s,]\.[A-Za-z]\w*")


class Told(NamedTuple):
    """A sentence that begins with the name of its encoder."""

    encoder: str
    text: str


class Names:
    """Factor values as the page may show them: without pictures no file is named."""

    def __init__(self, files: bool) -> None:
        self._files, self._numbers = files, dict[str, int]()

    def of(self, value: Any) -> str:
        if not isinstance(value, str):
            return str(value) if isinstance(value, bool) else f"{value:.3g}"
        if not PurePath(value).suffix:
            return value
        return PurePath(value).name if self._files else f"file {self._numbers.setdefault(value, len(self._numbers) + 1)}"

    def text(self, text: str) -> str:
        """Words that may name files."""
        return text if self._files or not _FILE.search(text) else "another training"

    def span(self, span: Sequence[Any]) -> str:
        return " to ".join(map(self.of, span))


def condition_name(condition: str) -> str:
    """`shift.size.small` to `size: small`."""
    return ": ".join(condition.split(".", 2)[1:]) or condition


def place_name(condition: str, factor: str, span: Sequence[Any], names: Names) -> str:
    """`size 0.4 to 0.5` of a slice, `shift of size: small` of a condition, `as in training` of the clean one."""
    if span:
        return f"{factor} {names.span(span)}"
    return "as in training" if condition == CLEAN else f"shift of {condition_name(condition)}"


def since_sentences(found: Shift, names: Names) -> list[Told]:
    """Of each encoder what became of the pictures that training was changed for."""
    said = []
    for each in (each for each in found.since if each.change):
        sure = "" if each.p_holm < SURE else ", may be chance"
        effect = f"{words.number(each.before)} to {words.number(each.after)} %"
        interval = f"{words.signed(each.difference)} points, {words.signed(each.low)} to {words.signed(each.high)}{sure}"
        place = place_name(each.condition, each.factor, each.span, names)
        said.append(Told(each.encoder, f"on {place}, answered by {names.text(each.change)}: {effect} ({interval})."))
    return said


def since_table(found: Shift, names: Names, colours: dict[str, str]) -> Table | None:
    """The same pictures before and after, those first that training was changed for."""
    rows = []
    for each in found.since:
        interval = f"{words.signed(each.low)} to {words.signed(each.high)}"
        cells = [
            Cell(place_name(each.condition, each.factor, each.span, names), names.text(each.change)),
            Cell(words.number(each.before)), Cell(words.number(each.after)), Cell(words.signed(each.difference)), Cell(interval),
            Cell(words.p_value(each.p_holm)), Cell(words.number(each.n, 0)),
        ]  # fmt: skip
        rows.append(Row(each.encoder, cells, colours.get(each.encoder, "")))
    return Table(["encoder", "pictures", "before", "after", "points", "95 % interval", "p (Holm)", "n"], rows) if rows else None


def findings(results: Results, names: Names) -> list[Told]:
    """For each encoder that is no floor: under what it falls, its least slice, and what hurts it more than the incumbent."""
    found = results.shift
    if found is None:
        return []
    encoders = [e.spec for e in results.encoders if e.role != "floor"]
    return [Told(encoder, " ".join(_sentences(found, encoder, names))) for encoder in encoders]


def _sentences(found: Shift, encoder: str, names: Names) -> Iterator[str]:
    effects = [e for e in found.effects if e.encoder == encoder]
    falls = sorted((e for e in effects if e.change < 0 and e.p_holm < SURE), key=lambda e: e.change)
    if falls:
        told = [f"{condition_name(e.condition)} by {words.points(abs(e.change))} (to {words.number(e.shifted)} %)" for e in falls]
        yield f"falls under {'; '.join(told)}."
    elif effects:
        yield "falls under none of the shifts for certain."
    worst = found.worst(encoder)
    if worst is not None:
        yield _worst(worst, names)
    for gap in found.gaps:
        if encoder in (gap.a, gap.b) and gap.p_holm < SURE and (hurt := gap.b if gap.difference < 0 else gap.a) == encoder:
            other = gap.a if hurt == gap.b else gap.b
            bounds = sorted((abs(gap.low), abs(gap.high)))
            size = f"{words.points(abs(gap.difference))} ({words.number(bounds[0])} to {words.number(bounds[1])})"
            yield f"{condition_name(gap.condition).capitalize()} hurts it {size} more than {other}."


def _worst(worst: SliceScore, names: Names) -> str:
    assert worst.gap is not None and worst.p_holm is not None
    where = f"{worst.factor} {names.span(worst.span)}"
    if worst.p_holm >= SURE or worst.gap >= 0:
        return "Within what training shows no slice stands out."
    size = f"{words.number(worst.value)} % ({words.interval(worst)}; {worst.n} pictures)"
    return f"Within what training shows it gets least of {where}: {size}, {words.signed(worst.gap)} points against the others."


def main_gaps(results: Results) -> list[ShiftGap]:
    """Those of the two encoders of the verdict."""
    verdict, found = results.verdict, results.shift
    if verdict is None or found is None:
        return []
    return [gap for gap in found.gaps if (gap.a, gap.b) == (verdict.incumbent, verdict.challenger)]


def gaps_table(found: Shift, colours: dict[str, str]) -> Table:
    """Differences of differences; every pair under every shift."""
    head = ["b against a", "factor", "change of b minus that of a", "95 % interval", "p", "p (Holm)", "scenes"]
    rows = []
    for gap in found.gaps:
        cells = [
            Cell(condition_name(gap.condition)),
            Cell(words.signed(gap.difference)),
            Cell(f"{words.signed(gap.low)} to {words.signed(gap.high)}"),
            Cell(words.p_value(gap.p)),
            Cell(words.p_value(gap.p_holm)),
            Cell(words.number(gap.n, 0)),
        ]
        rows.append(Row(gap.b, cells, colours.get(gap.b, ""), f"against {gap.a}"))
    return Table(head, rows)


def effects_table(results: Results, found: Shift) -> Table:
    """Shifts down, encoders across: what is left, and the change with its interval."""
    by = {(e.encoder, e.condition): e for e in found.effects}
    rows = []
    for condition in dict.fromkeys(e.condition for e in found.effects):
        cells = []
        for encoder in results.encoders:
            e = by[encoder.spec, condition]
            sure = "" if e.p_holm < SURE else ", may be chance"
            change = f"{words.signed(e.change)} ({words.signed(e.low)} to {words.signed(e.high)}){sure}"
            same = e.low == e.high == 0
            cells.append(Cell(words.number(e.shifted), "the same answers right" if same else change))
        rows.append(Row(condition_name(condition), cells))
    return Table(["factor that is shifted", *(e.spec for e in results.encoders)], rows)


def slices_table(results: Results, found: Shift, names: Names) -> Table | None:
    """Slices within what training shows, those first of which the two encoders of the verdict get least."""
    encoders = [e.spec for e in results.encoders]
    clean = [s for s in found.slices if s.condition == CLEAN and s.gap is not None]
    by = {(s.encoder, s.factor, tuple(s.span)): s for s in clean}
    slices = dict.fromkeys((s.factor, tuple(s.span)) for s in clean)
    judged = [e.spec for e in results.encoders if e.role in ("incumbent", "challenger")] or encoders
    order = sorted(slices, key=lambda place: min(by[encoder, *place].value for encoder in judged))
    rows = []
    for factor, span in order:
        scores = [by[encoder, factor, span] for encoder in encoders]
        cells = [Cell(words.number(scores[0].n, 0)), *(_slice_cell(score) for score in scores)]
        rows.append(Row(factor, cells, note=names.span(span)))
    return Table(["slice of test", "pictures", *encoders], rows[:_SHOWN], rows[_SHOWN:]) if rows else None


def _slice_cell(score: SliceScore) -> Cell:
    assert score.gap is not None and score.p_holm is not None
    against = f"{words.signed(score.gap)} to the others" if score.p_holm < SURE else "like the others"
    return Cell(words.number(score.value), f"{words.interval(score)}; {against}")
