"""What the pairs of a search for duplicates say of their sets: a table, counts, a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from selfsight.retrieval.duplicates import Ints, Pairs, groups, most_alike
from selfsight.retrieval.features_file import Gathered
from selfsight.retrieval.gallery import Gallery
from selfsight.retrieval.sheet import CELL, Shown, pairs_sheet

_MOST = 48
"""Pairs of a sheet."""


@dataclass(frozen=True)
class Twins:
    """`pairs` within one set or between two, which `galleries` and their `features` are."""

    pairs: Pairs
    galleries: Sequence[Gallery]
    features: Sequence[Gathered]

    @property
    def two(self) -> bool:
        return len(self.features) == 2

    @cached_property
    def group(self) -> Ints:
        sizes = [len(each.keys) for each in self.features]
        return groups(self.pairs, *sizes)

    def identical(self, progress: Callable[[int, int], None]) -> npt.NDArray[np.bool_] | None:
        """[p] whether the two files are the same to the byte; None where the images are not at hand."""
        if any(gallery.pictures.source is None for gallery in self.galleries):
            return None
        ends = [(0, place) for place in self.pairs.first.tolist()]
        other = [(len(self.features) - 1, place) for place in self.pairs.second.tolist()]
        wanted = sorted({*ends, *other})
        digests: dict[tuple[int, int], bytes | None] = {}
        for done, (side, place) in enumerate(wanted, 1):
            digests[side, place] = self.galleries[side].pictures.digest(self.features[side].keys[place])
            progress(done, len(wanted))
        same = [digests[a] is not None and digests[a] == digests[b] for a, b in zip(ends, other, strict=True)]
        return np.array(same, dtype=bool)

    def table(self, identical: npt.NDArray[np.bool_] | None) -> pa.Table:
        """group, first, second, cosine; labels and `identical` where they are known."""
        first, second = self.features[0], self.features[-1]
        columns: dict[str, Any] = {
            "group": pa.array(self.group),
            "first": _taken(first.keys, self.pairs.first),
            "second": _taken(second.keys, self.pairs.second),
            "cosine": pa.array(self.pairs.similarities),
        }
        if first.labels is not None:
            columns["first_label"] = _taken(first.labels, self.pairs.first)
        if second.labels is not None:
            columns["second_label"] = _taken(second.labels, self.pairs.second)
        if identical is not None:
            columns["identical"] = pa.array(identical)
        return pa.table(columns)

    def summary(self, table: pa.Table) -> dict[str, Any]:
        """Counts, and shares in percent. `twins`: images of the second set with one in the first, or which repeat another."""
        sizes = [len(each.keys) for each in self.features]
        p, number = self.pairs, int(self.group.max()) + 1 if len(self.group) else 0
        twins = len(np.unique(p.second)) if self.two else len(np.union1d(p.first, p.second)) - number
        possible = sizes[0] * sizes[1] if self.two else sizes[0] * (sizes[0] - 1) // 2
        labelled = {"first_label", "second_label"} <= set(table.column_names)
        return {
            "images": sizes[0],
            "images2": sizes[1] if self.two else None,
            "pairs": len(p.first),
            "groups": number,
            "identical": sum(table["identical"].to_pylist()) if "identical" in table.column_names else None,
            "labels_differ": pc.sum(pc.not_equal(table["first_label"], table["second_label"])).as_py() or 0 if labelled else None,
            "twins": twins,
            "share": 100 * twins / sizes[-1],
            "share_of_pairs": 100 * len(p.first) / max(1, possible),
            "highest": p.highest,
        }

    def sheet(self, table: pa.Table, title: str, progress: Callable[[int, int], None]) -> Image.Image | None:
        """The most alike pair of each group; None where no image is at hand or there is no pair."""
        chosen = most_alike(self.group, _MOST)
        if not len(chosen) or all(gallery.pictures.source is None for gallery in self.galleries):
            return None
        cells = []
        for done, row in enumerate(table.take(pa.array(chosen)).to_pylist(), 1):
            same = ", same file" if row.get("identical") else ""
            about = (f"{row['cosine']:.4f}{same}", f"group {row['group']}")
            pair = [self._cell(side, row, name, about[side]) for side, name in ((0, "first"), (1, "second"))]
            cells.append((pair[0], pair[1]))
            progress(done, len(chosen))
        shown = "the most alike pair of each group first" if len(self.pairs.first) > 1 else "the only pair"
        left_out = f", {len(chosen)} of {len(self.pairs.first)}" if len(chosen) < len(self.pairs.first) else ""
        sides = f"; left {self.galleries[0].name}, right {self.galleries[1].name}" if self.two else ""
        return pairs_sheet(cells, title, [f"{shown}{left_out}{sides}"])

    def _cell(self, side: int, row: dict[str, Any], name: str, about: str) -> Shown:
        picture = self.galleries[side if self.two else 0].pictures.small(row[name], CELL)
        label = row.get(f"{name}_label")
        return Shown(picture, (about, row[name], *([label] if label is not None else [])))


def _taken(values: list[str], places: Ints) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(places))
