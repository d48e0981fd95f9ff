"""Colours of objects, one after the other, told apart by colour-blind readers (Okabe and Ito)."""

from __future__ import annotations

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
