"""The tables of the page: plain rows of text for the template, which escapes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfsight.reporting import words
from selfsight.reporting.palette import encoder_colours
from selfsight.results import Comparison, Results, Score


@dataclass(frozen=True)
class Cell:
    """What one cell shows: the value, and a smaller line under it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row about one encoder (or a condition, or a pair), with its colour."""

    name: str
    cells: list[Cell]
    colour: str = ""
    note: str = ""
    floor: bool = False


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[Row]
    more: list[Row] = field(default_factory=list)


def scores(results: Results) -> Table | None:
    """Encoders down, clean metrics across."""
    metrics = list(dict.fromkeys((s.task, s.metric) for s in results.scores if s.condition == "clean"))
    if not metrics:
        return None
    colours = encoder_colours(results)
    rows = []
    for encoder in results.encoders:
        cells = [_score_cell(_found(results, encoder.spec, *metric, "clean")) for metric in metrics]
        rows.append(Row(encoder.spec, cells, colours[encoder.spec], encoder.role, encoder.role == "floor"))
    return Table(["encoder", *(words.score_name(*metric) for metric in metrics)], rows)


def _found(results: Results, encoder: str, task: str, metric: str, condition: str) -> list[Score]:
    wanted = (encoder, task, metric, condition)
    return [s for s in results.scores if (s.encoder, s.task, s.metric, s.condition) == wanted]


def _score_cell(found: list[Score]) -> Cell:
    """The first seed with its interval; further seeds as their range."""
    if not found:
        return Cell(words.NONE)
    first = found[0]
    note = words.interval(first)
    if len(found) > 1:
        values = [s.value for s in found]
        note += f"; {len(found)} seeds {words.number(min(values))} to {words.number(max(values))}"
    return Cell(words.number(first.value), note)


def conditions(results: Results) -> Table | None:
    """Conditions down, encoders across; of those of a drawn set the section tells more (`shifts.effects_table`)."""
    shifted = [s for s in results.scores if s.condition != "clean" and (results.shift is None or s.task != "shift")]
    kinds = list(dict.fromkeys((s.task, s.metric, s.condition) for s in shifted))
    if not kinds:
        return None
    rows = []
    for kind in kinds:
        cells = [_score_cell(_found(results, e.spec, *kind)) for e in results.encoders]
        rows.append(Row(kind[2], cells, note=words.score_name(*kind[:2])))
    return Table(["condition", *(e.spec for e in results.encoders)], rows)


def comparisons(results: Results) -> Table | None:
    """Paired differences; those of the verdict's two encoders first, the others folded away."""
    if not results.comparisons:
        return None
    head = ["b minus a", "metric", "difference", "95 % interval", "p", "p (Holm)", "only a right", "only b right", "images"]
    verdict = results.verdict
    clean = [c for c in results.comparisons if c.condition == "clean"]
    main = [c for c in clean if verdict is None or (c.a, c.b) == (verdict.incumbent, verdict.challenger)]
    rest = [c for c in results.comparisons if c not in main]
    if not main:
        main, rest = rest, []
    return Table(head, [_comparison_row(results, c) for c in main], [_comparison_row(results, c) for c in rest])


def _comparison_row(results: Results, c: Comparison) -> Row:
    cells = [
        Cell(words.score_name(c.task, c.metric, c.condition)),
        Cell(words.signed(c.difference)),
        Cell(f"{words.signed(c.low)} to {words.signed(c.high)}"),
        Cell(words.p_value(c.p)),
        Cell(words.p_value(c.p_holm)),
        Cell(words.number(c.only_a, 0)),
        Cell(words.number(c.only_b, 0)),
        Cell(words.number(c.n, 0)),
    ]
    return Row(c.b, cells, encoder_colours(results).get(c.b, ""), f"minus {c.a}")


def cost(results: Results) -> Table | None:
    if not results.cost:
        return None
    colours = encoder_colours(results)
    floors = {e.spec for e in results.encoders if e.role == "floor"}
    rows = []
    for c in results.cost:
        speed = words.number(c.images_per_second, 0 if c.images_per_second >= 100 else 1)
        cells = [Cell(speed), Cell(words.count(c.parameters)), Cell(words.number(c.feature_width, 0)),
                 Cell(words.number(c.peak_memory_mb, 0)), Cell(c.device), Cell(str(c.batch_size))]  # fmt: skip
        rows.append(Row(c.encoder, cells, colours.get(c.encoder, ""), floor=c.encoder in floors))
    return Table(["encoder", "images/s", "parameters", "feature width", "peak memory, MB", "device", "batch"], rows)


def encoders(results: Results) -> Table | None:
    if not results.encoders:
        return None
    colours = encoder_colours(results)
    rows = []
    for e in results.encoders:
        cells = [Cell(e.kind), Cell(e.weights), Cell(e.pool), Cell(e.input or f"{e.input_size} px"),
                 Cell(words.number(e.feature_width, 0)), Cell(words.count(e.parameters))]  # fmt: skip
        rows.append(Row(e.spec, cells, colours[e.spec], e.role, e.role == "floor"))
    return Table(["encoder", "kind", "weights", "pooling", "input", "width", "parameters"], rows)
