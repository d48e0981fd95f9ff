"""The figures of shifts: accuracy by the value of a factor inside and outside training, and whom a shift hurts more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from selfsight.reporting.figures import banded_dots, bars, dots_about_zero, figure, inert, short
from selfsight.reporting.palette import BAND, UNKNOWN, encoder_colours
from selfsight.reporting.shifts import CLEAN, Names, condition_name, main_gaps
from selfsight.results import Results, Score, Shift, ShiftFactor, SliceScore

NAMES_SHOWN = 12
_HEIGHT = 280


def conditions_plot(results: Results, found: Shift) -> go.Figure:
    """A band for the clean pictures and for each shift, a dot with its interval for each encoder."""
    colours = encoder_colours(results)
    conditions = [CLEAN, *dict.fromkeys(e.condition for e in found.effects)]
    dots = []
    for encoder in results.encoders:
        scores: dict[int, Score] = {}
        for s in results.scores:
            if (s.encoder, s.task, s.metric) == (encoder.spec, "shift", "top1") and s.condition in conditions:
                scores.setdefault(conditions.index(s.condition), s)
        dots.append((encoder.spec, colours[encoder.spec], scores))
    labels = ["as in training", *(inert(condition_name(name)) for name in conditions[1:])]
    return banded_dots(dots, labels, "top-1 accuracy, % (bars: 95 % interval)")


def gaps_plot(results: Results) -> go.Figure | None:
    """The change of the challenger minus that of the incumbent under each shift."""
    rows = main_gaps(results)
    if not rows or results.verdict is None:
        return None
    labels = [inert(condition_name(gap.condition)) for gap in rows]
    colour = encoder_colours(results).get(results.verdict.challenger, UNKNOWN)
    return dots_about_zero(rows, labels, "points: what the challenger loses more (left) or less (right)", colour)


def factor_plots(results: Results, found: Shift, names: Names) -> Iterator[tuple[str, go.Figure]]:
    """(factor, figure) of every factor that is shifted: accuracy by its value, training shaded."""
    colours = encoder_colours(results)
    shifted = dict.fromkeys(e.factor for e in found.effects)
    for factor in (f for f in found.factors if f.name in shifted):
        slices = [s for s in found.slices if s.factor == factor.name]
        if slices:
            draw = _curve if factor.numbers and all(isinstance(v, int | float) for s in slices for v in s.span) else _columns
            yield factor.name, draw(factor, slices, colours, names)


def _curve(factor: ShiftFactor, slices: Sequence[SliceScore], colours: dict[str, str], names: Names) -> go.Figure:
    fig = figure(_HEIGHT)
    low, high = min(factor.training), max(factor.training)
    ends = [end for s in slices for end in s.span] + [low, high]
    hair = 0.006 * (max(ends) - min(ends) or 1)
    fig.add_vrect(x0=low - hair, x1=high + hair, fillcolor=BAND, line_width=0, layer="below")
    for (encoder, condition), own in _parted(slices):
        own = sorted(own, key=lambda s: s.span[0])
        _add(fig, own, [(s.span[0] + s.span[-1]) / 2 for s in own], colours.get(encoder, UNKNOWN), condition, names, lines=True)
    fig.update_xaxes(title_text=inert(factor.name), nticks=8)
    fig.update_yaxes(title_text="top-1, %", range=[-4, 104])
    return fig


def _columns(factor: ShiftFactor, slices: Sequence[SliceScore], colours: dict[str, str], names: Names) -> go.Figure:
    """A column a value: those of training first, shaded."""
    sizes = {(s.condition != CLEAN, str(s.span[0])): s.n for s in slices}
    kept = sorted(sizes, key=lambda place: -sizes[place])[:NAMES_SHOWN]
    places = {place: number for number, place in enumerate(sorted(kept))}
    inside = sum(not away for away, _ in places)
    fig = figure(_HEIGHT)
    fig.add_vrect(x0=-0.5, x1=inside - 0.5, fillcolor=BAND, line_width=0, layer="below")
    encoders = list(dict.fromkeys(s.encoder for s in slices))
    for (encoder, condition), own in _parted(slices):
        own = [s for s in own if (condition != CLEAN, str(s.span[0])) in places]
        aside = (encoders.index(encoder) - (len(encoders) - 1) / 2) * 0.6 / len(encoders)
        xs = [places[condition != CLEAN, str(s.span[0])] + aside for s in own]
        _add(fig, own, xs, colours.get(encoder, UNKNOWN), condition, names, lines=False)
    labels = [short(names.of(name), 14) for _, name in places]
    fig.update_xaxes(tickvals=list(places.values()), ticktext=labels, range=[-0.5, len(places) - 0.5], showgrid=False, ticks="")
    fig.update_xaxes(title_text=inert(factor.name))
    fig.update_yaxes(title_text="top-1, %", range=[-4, 104])
    return fig


def _parted(slices: Sequence[SliceScore]) -> Iterator[tuple[tuple[str, str], list[SliceScore]]]:
    for part in dict.fromkeys((s.encoder, s.condition) for s in slices):
        yield part, [s for s in slices if (s.encoder, s.condition) == part]


def _add(
    fig: go.Figure, own: Sequence[SliceScore], xs: list[float], colour: str, condition: str, names: Names, *, lines: bool
) -> None:
    symbol = "circle" if condition == CLEAN else "diamond"
    place = "as in training" if condition == CLEAN else condition_name(condition)
    fig.add_scatter(
        x=xs, y=[s.value for s in own], mode="lines+markers" if lines else "markers",
        line={"color": colour, "width": 1.2},
        marker={"size": 8, "color": colour, "symbol": symbol, "line": {"width": 1, "color": "white"}},
        error_y=bars([s.value for s in own], [s.low for s in own], [s.high for s in own], colour),
        text=[
            f"{inert(s.encoder)}<br>{inert(s.factor)} {inert(names.span(s.span))} ({inert(place)})"
            f"<br>{s.value:.1f} % ({s.low:.1f} to {s.high:.1f}), {s.n} pictures"
            for s in own
        ],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
