"""Colours: one an encoder throughout the page, told apart by colour-blind readers (Okabe and Ito), floors grey."""

from __future__ import annotations

from selfsight.results import Results

INCUMBENT, CHALLENGER = "#0072B2", "#D55E00"
OTHERS = ("#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#6A51A3", "#8C564B")
FLOORS = ("#8D939C", "#B9BEC6", "#6B717A")
UNKNOWN = "#6B717A"
# Classes on the map: ten hues of even lightness (Tableau 10), then the same again with other markers.
CLASSES = ("#4E79A7", "#F28E2B", "#59A14F", "#E15759", "#B07AA1", "#76B7B2", "#EDC948", "#FF9DA7", "#9C755F", "#7F7F7F")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
INK, MUTED, GRID, BAND = "#1c2430", "#5b6472", "#e6e9ee", "rgba(120,130,145,0.14)"


def encoder_colours(results: Results) -> dict[str, str]:
    """Colour of each encoder spec; the first incumbent and challenger have their own."""
    colours: dict[str, str] = {}
    taken = {"floor": 0, "other": 0}
    for encoder in results.encoders:
        own = {"incumbent": INCUMBENT, "challenger": CHALLENGER}.get(encoder.role)
        if own is not None and own not in colours.values():
            colours[encoder.spec] = own
            continue
        kind = "floor" if encoder.role == "floor" else "other"
        shades = FLOORS if kind == "floor" else OTHERS
        colours[encoder.spec] = shades[taken[kind] % len(shades)]
        taken[kind] += 1
    return colours


def class_marker(index: int) -> tuple[str, str]:
    """(colour, symbol) of a class on the map; grey for an image without a label."""
    if index < 0:
        return UNKNOWN, "circle"
    return CLASSES[index % len(CLASSES)], SYMBOLS[index // len(CLASSES) % len(SYMBOLS)]
