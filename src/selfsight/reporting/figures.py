"""The figures of scores and cost: functions from results to a Plotly figure.

Plotly reads a little HTML in every text it draws, so names from the user pass through `inert` first.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from selfsight.reporting import words
from selfsight.reporting.palette import BAND, GRID, INK, MUTED, UNKNOWN, encoder_colours
from selfsight.results import Comparison, MaskScore, Results, Score, ShiftGap, Verdict

Valued = Score | MaskScore
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def inert(text: str) -> str:
    """Text that Plotly draws letter by letter: no tags, no `%{...}` of a template."""
    return html.escape(text, quote=False).replace("%{", "%\N{ZERO WIDTH SPACE}{")


def short(text: str, limit: int = 26) -> str:
    """An axis label that leaves room for the plot: the end of a spec tells more than its start."""
    return inert(text if len(text) <= limit else "…" + text[1 - limit :])


def figure(height: int, **layout: Any) -> go.Figure:
    """An empty figure in the manner of the page."""
    fig = go.Figure()
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True, "fixedrange": True,
            "title": {"standoff": 10, "font": {"size": 12.5, "color": MUTED}}}  # fmt: skip
    fig.update_layout(
        template="none", height=height, margin={"l": 8, "r": 16, "t": 12, "b": 8}, showlegend=False, dragmode=False,
        font={"family": FONT, "size": 12.5, "color": INK}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"family": FONT, "size": 12.5}, "bgcolor": "white", "bordercolor": GRID}, hovermode="closest",
        xaxis=axis, yaxis=axis,
    )  # fmt: skip
    fig.update_layout(**layout)
    return fig


def top1_scores(results: Results) -> list[tuple[str, str]]:
    """(task, metric) of the accuracies that the main plot shows."""
    found = dict.fromkeys((s.task, s.metric) for s in results.scores if s.condition == "clean")
    return [pair for pair in found if pair[1].startswith("top1")]


def scores_plot(results: Results) -> go.Figure | None:
    """Dots with intervals: a band of rows a metric, one row an encoder."""
    metrics = top1_scores(results)
    if not metrics:
        return None
    colours = encoder_colours(results)
    dots = [(e.spec, colours[e.spec], _scores_of(results, e.spec, metrics)) for e in results.encoders]
    labels = [f"{words.task_name(task)}<br>{words.metric_name(metric)}" for task, metric in map(_inert_pair, metrics)]
    return banded_dots(dots, labels, "top-1 accuracy, % (bars: 95 % interval)")


def banded_dots(dots: Sequence[tuple[str, str, Mapping[int, Valued]]], labels: list[str], title: str) -> go.Figure:
    """A band for each label, in it a row for each of the `dots`: name, colour, and a value with its interval by band."""
    step = 1.0 / (len(dots) + 1.2)
    fig = figure(70 + max(44, 17 * (len(dots) + 1)) * len(labels))
    for rank, (name, colour, scores) in enumerate(dots):
        ys = [row + (rank - (len(dots) - 1) / 2) * step for row in scores]
        fig.add_trace(_dots(name, colour, list(scores.values()), ys))
    for row in range(0, len(labels), 2):
        fig.add_hrect(y0=row - 0.5, y1=row + 0.5, fillcolor="#f6f7f9", line_width=0, layer="below")
    fig.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    fig.update_yaxes(showgrid=False, ticks="")
    fig.update_xaxes(title_text=title, nticks=8)
    return fig


def _inert_pair(pair: tuple[str, str]) -> tuple[str, str]:
    return inert(pair[0]), inert(pair[1])


def _scores_of(results: Results, spec: str, metrics: list[tuple[str, str]]) -> dict[int, Score]:
    """Row number -> score of the first seed."""
    found: dict[int, Score] = {}
    for score in results.scores:
        if score.encoder == spec and score.condition == "clean" and (score.task, score.metric) in metrics:
            found.setdefault(metrics.index((score.task, score.metric)), score)
    return found


def _dots(spec: str, colour: str, scores: list[Valued], ys: list[float]) -> go.Scatter:
    return go.Scatter(
        x=[s.value for s in scores], y=ys, mode="markers", name=inert(spec),
        marker={"size": 9, "color": colour, "line": {"width": 1, "color": "white"}},
        error_x=bars([s.value for s in scores], [s.low for s in scores], [s.high for s in scores], colour),
        text=[f"{inert(spec)}<br>{s.value:.1f} ({s.low:.1f} to {s.high:.1f})" for s in scores],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def bars(values: list[float], lows: list[float], highs: list[float], colour: str) -> dict[str, Any]:
    """Intervals as Plotly's error bars."""
    return {
        "type": "data", "symmetric": False, "thickness": 1.6, "width": 0, "color": colour,
        "array": [h - v for v, h in zip(values, highs, strict=True)],
        "arrayminus": [v - w for v, w in zip(values, lows, strict=True)],
    }  # fmt: skip


def verdict_pairs(results: Results, verdict: Verdict) -> list[Comparison]:
    """Clean comparisons of the two encoders of the verdict."""
    pair = (verdict.incumbent, verdict.challenger)
    return [c for c in results.comparisons if (c.a, c.b) == pair and c.condition == "clean"]


def differences_plot(results: Results) -> go.Figure | None:
    """Challenger minus incumbent in each metric, with the margin shaded."""
    verdict = results.verdict
    rows = verdict_pairs(results, verdict) if verdict else []
    if verdict is None or not rows:
        return None
    labels = [f"{inert(words.task_name(c.task))} {inert(words.metric_name(c.metric))}" for c in rows]
    colour = encoder_colours(results).get(verdict.challenger, UNKNOWN)
    return dots_about_zero(rows, labels, "points, challenger minus incumbent", colour, verdict.margin)


def dots_about_zero(
    rows: Sequence[Comparison | ShiftGap], labels: Sequence[str], title: str, colour: str, margin: float = 0.0
) -> go.Figure:
    """Differences with their intervals, one a line, beside a line at zero; a `margin` around it is shaded."""
    fig = figure(86 + 34 * len(rows))
    if margin > 0:
        fig.add_vrect(x0=-margin, x1=margin, fillcolor=BAND, line_width=0, layer="below")
    fig.add_vline(x=0, line={"color": MUTED, "width": 1})
    values = [row.difference for row in rows]
    fig.add_scatter(
        x=values, y=list(range(len(rows))), mode="markers",
        marker={"size": 10, "color": colour, "line": {"width": 1, "color": "white"}},
        error_x=bars(values, [row.low for row in rows], [row.high for row in rows], colour),
        text=[f"{words.signed(r.difference)} ({words.signed(r.low)} to {words.signed(r.high)})" for r in rows],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    fig.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, range=[len(rows) - 0.5, -0.5], showgrid=False, ticks="")
    fig.update_xaxes(title_text=title, nticks=7)
    return fig


def cost_plot(results: Results) -> go.Figure | None:
    """Images a second against accuracy at the endpoint; the area of a dot grows with the parameters."""
    found = words.endpoint(results)
    if found is None:
        return None
    scores: dict[str, Score] = {}
    for s in results.scores:
        if (s.task, s.metric, s.condition) == found:
            scores.setdefault(s.encoder, s)
    # Raw pixels are no network: copying them has a speed, but none that a team could choose.
    costs = [c for c in results.cost if c.encoder in scores and c.parameters > 0]
    if not costs:
        return None
    colours = encoder_colours(results)
    fig = figure(380)
    largest = max(c.parameters for c in costs) or 1
    for c in costs:
        score = scores[c.encoder]
        size = 10 + 30 * math.sqrt(c.parameters / largest)
        numbers = f"{c.images_per_second:.3g} images/s, {score.value:.1f} %, {words.count(c.parameters)} parameters"
        fig.add_scatter(
            x=[c.images_per_second], y=[score.value], mode="markers", name=inert(c.encoder),
            marker={"size": size, "color": colours.get(c.encoder, UNKNOWN), "opacity": 0.85},
            text=[f"{inert(c.encoder)}<br>{numbers}"], hovertemplate="%{text}<extra></extra>", cliponaxis=False,
        )  # fmt: skip
    speeds = [math.log10(c.images_per_second) for c in costs]
    pad = max(0.25, 0.12 * (max(speeds) - min(speeds)))
    low, high = min(speeds) - pad, max(speeds) + pad
    fig.update_xaxes(type="log", range=[low, high], title_text="images per second (log scale)")
    fig.update_xaxes(tickvals=_log_ticks(low, high), ticktext=[f"{tick:,g}" for tick in _log_ticks(low, high)])
    fig.update_yaxes(title_text=f"{inert(words.endpoint_name(results))}, %", rangemode="normal")
    return fig


def _log_ticks(low: float, high: float) -> list[float]:
    """Decades, and 2 and 5 between them on a short axis, each with its whole number: Plotly's own read `2`, `5`."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]
