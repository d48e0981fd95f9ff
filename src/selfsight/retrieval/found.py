"""What a search has found: rows, a table, a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from selfsight.retrieval.index import Index, Neighbours
from selfsight.retrieval.pictures import Pictures
from selfsight.retrieval.queries import Query
from selfsight.retrieval.sheet import CELL, NEIGHBOURS, Shown, neighbours_sheet

_MOST = 50
"""Queries of a sheet."""


def rows_of(index: Index, query: Query, near: Neighbours) -> list[dict[str, Any]]:
    """query, rank from 1, key, cosine, and label where there are labels."""
    keys, labels = index.contents.keys, index.contents.labels
    rows = []
    for rank, (place, cosine) in enumerate(zip(near.places.tolist(), near.similarities.tolist(), strict=True), 1):
        label = {} if labels is None else {"label": labels[place]}
        rows.append({"query": query.text, "rank": rank, "key": keys[place], "cosine": min(cosine, 1.0), **label})
    return rows


def results_table(results: Sequence[Sequence[dict[str, Any]]], *, labelled: bool) -> pa.Table:
    fields = [("query", pa.string()), ("rank", pa.int64()), ("key", pa.string()), ("cosine", pa.float32())]
    schema = pa.schema([*fields, *([("label", pa.string())] if labelled else [])])
    return pa.Table.from_pylist([row for rows in results for row in rows], schema)


def results_sheet(
    asked: Sequence[Query],
    results: Sequence[Sequence[dict[str, Any]]],
    pictures: Pictures,
    title: str,
    progress: Callable[[int, int], None],
) -> Image.Image | None:
    """The first queries with their neighbours; None where no image of the data is at hand."""
    if pictures.source is None or not asked:
        return None
    rows = []
    for done, (query, found) in enumerate(zip(asked[:_MOST], results, strict=False), 1):
        cells = [_cell(row, pictures) for row in found[:NEIGHBOURS]]
        rows.append((Shown(query.picture, (query.text, "the query")), cells))
        progress(done, min(len(asked), _MOST))
    more = f"the first {_MOST} of {len(asked)} queries, " if len(asked) > _MOST else ""
    few = f"the first {NEIGHBOURS} neighbours" if len(results[0]) > NEIGHBOURS else "neighbours"
    return neighbours_sheet(rows, title, [f"{more}{few} by falling cosine"])


def _cell(row: dict[str, Any], pictures: Pictures) -> Shown:
    label = [row["label"]] if "label" in row else []
    return Shown(pictures.small(row["key"], CELL), (f"{row['cosine']:.4f}", row["key"], *label))
