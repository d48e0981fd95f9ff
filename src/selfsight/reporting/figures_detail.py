"""The figures of what lies behind the scores: confusion, recall of a class, feature maps, training curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfsight.reporting import words
from selfsight.reporting.figures import figure, inert, short
from selfsight.reporting.folder import Features2d
from selfsight.reporting.outcomes import Ints, Paired, recall
from selfsight.reporting.palette import CHALLENGER, INCUMBENT, MUTED, UNKNOWN, class_marker

SHADES = [[0.0, "#ffffff"], [0.08, "#e3edf6"], [0.4, "#86b4d6"], [1.0, "#0b4a7e"]]
MAP_POINTS = 2500  # an encoder; SVG stays fluent below this
CURVE_POINTS = 800


def confusion_plot(matrix: Ints, classes: list[str]) -> go.Figure:
    """Rows normalised to percent of the true class; counts on hover."""
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(100.0 * matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    names = [short(name, 16) for name in classes]
    full = [inert(name) for name in classes]
    hover = [
        [f"true {a}<br>said {b}<br>{n} images, {p:.0f} %" for b, n, p in zip(full, ns, ps, strict=True)]
        for a, ns, ps in zip(full, matrix.tolist(), share.tolist(), strict=True)
    ]
    size = 10 if len(classes) > 15 else 11.5
    fig = figure(min(620, 190 + 24 * len(classes)))
    fig.add_heatmap(z=share.round(1).tolist(), zmin=0, zmax=100, colorscale=SHADES, showscale=False, xgap=1, ygap=1,
                    text=hover, hovertemplate="%{text}<extra></extra>")  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "tickfont": {"size": size}, "ticks": ""}
    fig.update_xaxes(**ticks, tickangle=-60 if len(names) > 4 else 0, title_text="said")
    fig.update_yaxes(**ticks, autorange="reversed", title_text="true class")
    if len(classes) <= 12:
        fig.update_layout(annotations=_shares(share))
    return fig


def _shares(share: Any) -> list[dict[str, Any]]:
    """The percentages inside the cells, where there is room for them."""
    return [
        {"x": column, "y": row, "text": f"{value:.0f}", "showarrow": False,
         "font": {"size": 10.5, "color": "white" if value > 45 else MUTED}}
        for row, values in enumerate(share.tolist()) for column, value in enumerate(values) if value >= 0.5
    ]  # fmt: skip


def class_change(pair: Paired, classes: list[str], limit: int = 30) -> tuple[go.Figure, int] | None:
    """Challenger minus incumbent recall, in points; the `limit` largest changes, and how many classes there are."""
    change = recall(pair.truth, pair.challenger, len(classes)) - recall(pair.truth, pair.incumbent, len(classes))
    known = np.flatnonzero(np.isfinite(change))
    if not len(known):
        return None
    shown = known[np.argsort(-np.abs(change[known]), kind="stable")[:limit]]
    shown = shown[np.argsort(change[shown], kind="stable")]
    values = [float(v) for v in change[shown]]
    images = [int((pair.truth == index).sum()) for index in shown]
    rows = list(zip(shown, values, images, strict=True))
    fig = figure(70 + 21 * len(shown), bargap=0.28)
    fig.add_bar(
        x=values, y=list(range(len(shown))), orientation="h", marker_color=[CHALLENGER if v > 0 else INCUMBENT for v in values],
        text=[f"{inert(classes[i])}: {words.signed(v)} points, {n} images" for i, v, n in rows],
        textposition="none", hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    fig.add_vline(x=0, line={"color": MUTED, "width": 1})
    fig.update_yaxes(tickvals=list(range(len(shown))), ticktext=[short(classes[i], 22) for i in shown], showgrid=False, ticks="")
    fig.update_xaxes(title_text="change of recall, points", nticks=7)
    return fig, len(known)


def map_rows(features: Features2d) -> list[int]:
    """Rows that the map draws: all, or an even spread of them."""
    n = len(features.keys)
    return list(range(n)) if n <= MAP_POINTS else np.linspace(0, n - 1, MAP_POINTS).astype(int).tolist()


def map_plot(features: Features2d, classes: list[str], thumbs: dict[str, int], names: bool) -> go.Figure:
    """Features in two dimensions, a trace a class; `customdata` is the index of the picture, `text` the file name."""
    rows = np.array(map_rows(features), dtype=np.int64)
    fig = figure(400, dragmode="zoom", margin={"l": 4, "r": 4, "t": 4, "b": 4})
    for label in sorted(set(features.labels[rows].tolist())):
        own = rows[features.labels[rows] == label]
        colour, symbol = class_marker(label)
        caption = classes[label] if label >= 0 else ""
        fig.add_scatter(
            x=features.x[own].round(3).tolist(), y=features.y[own].round(3).tolist(), mode="markers", hoverinfo="none",
            name=inert(caption), meta={"label": label, "caption": caption},
            customdata=[thumbs.get(features.keys[row], -1) for row in own],
            text=[inert(features.keys[row]) for row in own] if names else None,
            marker={"size": 6.5 if len(rows) < 800 else 4.5, "color": colour, "symbol": symbol, "opacity": 0.8},
        )  # fmt: skip
    # The axes of such a map have no meaning; only who is near whom has.
    quiet = {"showticklabels": False, "showgrid": False, "ticks": "", "fixedrange": False, "showline": True, "mirror": True}
    fig.update_xaxes(**quiet)
    fig.update_yaxes(**quiet)
    return fig


def curve_plot(curves: list[dict[str, Any]], measure: str, colours: dict[str, str]) -> go.Figure | None:
    """One measure of every run over the steps; None where no run logged it."""
    fig = figure(250, hovermode="closest")
    for curve in curves:
        points = [(float(x), float(y)) for x, y in _points(curve.get("rows", []), measure) if math.isfinite(float(y))]
        if not points:
            continue
        points = points[:: math.ceil(len(points) / CURVE_POINTS)]
        spec = str(curve.get("encoder", ""))
        fig.add_scatter(
            x=[x for x, _ in points], y=[float(f"{y:.5g}") for _, y in points], name=inert(spec),
            mode="lines+markers" if len(points) < 30 else "lines", marker={"size": 5},
            line={"color": colours.get(spec, UNKNOWN), "width": 1.8},
            hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    if not fig.data:
        return None
    if measure == "loss_over_chance":
        fig.add_hline(y=1, line={"color": MUTED, "width": 1, "dash": "dot"}, annotation_text="nothing learned",
                      annotation_position="bottom right", annotation_font={"size": 11, "color": MUTED})  # fmt: skip
    fig.update_xaxes(title_text="step", nticks=6)
    fig.update_yaxes(nticks=5, exponentformat="power" if measure == "lr" else "none")
    return fig


def _points(rows: list[dict[str, Any]], measure: str) -> list[tuple[Any, Any]]:
    return [(row.get("step", index), row[measure]) for index, row in enumerate(rows) if isinstance(row.get(measure), int | float)]
