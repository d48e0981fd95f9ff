"""`search` and `duplicates`: the nearest images of some, and those that are too alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsight import device as devices
from selfsight import metrics, neighbours, retrieval
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.data.sources import BadImage, absolute
from selfsight.data.tolerance import Tolerance, listed
from selfsight.encoders import Encoder, load_encoder
from selfsight.errors import ConfigError, DataError
from selfsight.retrieval import Gallery, Index, Reading
from selfsight.runs import append_jsonl, place_for_folder, write_atomic

MEASURED = (1, 5, 10)
"""The k of recall and precision."""
_BAD = "bad_images.jsonl"


def search(
    encoder: str,
    data: str | Path,
    queries: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    k: int = 10,
    index: str | Path | None = None,
    images: str | Path | None = None,
    measure: bool = False,
    format: str = "csv",
    exact_below: int = retrieval.EXACT_BELOW,
    device: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """The `k` images of `data` that are most like each query, by the cosine of their features.

    `data` is any source of images, or a file of features that `embed` wrote; `images` says where the images of such a file are
    now, for the contact sheet. A query is an image file or a key of `data`. The index is kept in the folder `index`, by default
    one of the cache, and used again while encoder and images stay the same; from `exact_below` images on it is compressed.

    `out` gets `results.FORMAT` (csv, parquet or json) with query, rank, key, cosine and label, `sheet.png`, and
    `bad_images.jsonl` if there are any. `measure` asks each image of `data` for the others of its class. Returns images, exact,
    results [queries][k], measure, bad_images and files. Raises `InputError`.
    """
    watch = watch or Silent()
    asked = [queries] if isinstance(queries, str | Path) else list(queries)
    if not asked and not measure:
        raise ConfigError("QUERY: expected an image file or a key of the data, or --measure. Got neither.")
    retrieval.check_format(format)
    loaded, reading = _loaded(encoder, device, batch_size, workers, tolerance(strict, max_bad), max_pixels, watch)
    path = None if out is None else place_for_folder(out)
    with listed(path / _BAD) if path else nullcontext():
        gallery = retrieval.open_gallery(data, loaded, reading, images)
        held, bad = _held(gallery, index, reading, exact_below)
    if measure and held.contents.labels is None:
        raise DataError(f"--measure: {data} has no labels; expected a sub-folder for each class, or a column of labels")
    found = retrieval.queries([str(text) for text in asked], held, loaded, reading.device, gallery.pictures)
    results = [retrieval.rows_of(held, *pair) for pair in zip(found, retrieval.answers(held, found, k), strict=True)]
    measured = _measured(held, watch) if measure else None
    files: list[Path] = []
    if path:
        table = retrieval.results_table(results, labelled=held.contents.labels is not None)
        title, drawing = f"{gallery.name}, {encoder}", partial(watch.advance, "drawing neighbours")
        sheet = retrieval.results_sheet(found, results, gallery.pictures, title, drawing)
        files = [
            retrieval.write_table(table, path, "results", format),
            *_write_sheet(path, sheet),
            *_write_bad(path, bad),
        ]
    told = {"images": len(held), "exact": held.exact, "results": results, "measure": measured, "bad_images": _told(bad)}
    return told | {"files": [str(file) for file in files]}


def duplicates(
    encoder: str,
    data: str | Path,
    data2: str | Path | None = None,
    *,
    out: str | Path,
    above: float = 0.95,
    images: str | Path | None = None,
    images2: str | Path | None = None,
    format: str = "csv",
    device: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Pairs of images whose cosine is `above` or more: within `data`, or between it and `data2` (test images seen in training).

    Sources as in `search`. `out` gets `pairs.FORMAT` with group, first, second, cosine, labels where there are, and whether the
    files are the same to the byte; `sheet.png` with the most alike pair of each group; and `bad_images.jsonl` if there are any.
    Returns images, images2, pairs, groups, identical (None where the files are not at hand), labels_differ, twins (images of
    `data2` that have one in `data`; within one set those that repeat another), share and share_of_pairs in percent, highest (the
    cosine of the most alike pair), bad_images and files. Raises `InputError`.
    """
    watch = watch or Silent()
    retrieval.check_format(format)
    retrieval.check_level(above)
    if data2 is not None and absolute(str(data)) == absolute(str(data2)):
        raise DataError(f"{data2}: is the first set itself; leave it out to look for pairs within one set")
    loaded, reading = _loaded(encoder, device, batch_size, workers, tolerance(strict, max_bad), max_pixels, watch)
    path = place_for_folder(out)
    with listed(path / _BAD):
        given = [(data, images)] if data2 is None else [(data, images), (data2, images2)]
        sets = [retrieval.open_gallery(where, loaded, reading, shown) for where, shown in given]
        features = [each.origin.gather() for each in sets]
    first, *others = (metrics.normalize(each.vectors) for each in features)
    found = retrieval.pairs(first, others[0] if others else None, above, progress=partial(watch.advance, "comparing"))
    twins = retrieval.Twins(found, sets, features)
    table = twins.table(twins.identical(partial(watch.advance, "comparing files")))
    files = [retrieval.write_table(table, path, "pairs", format)]
    title = f"{' and '.join(each.name for each in sets)}: pairs of cosine {above:g} or more, {encoder}"
    files += _write_sheet(path, twins.sheet(table, title, partial(watch.advance, "drawing pairs")))
    bad = [image for each, part in zip(sets, features, strict=True) for image in (*each.rejected, *part.bad)]
    files += _write_bad(path, bad)
    return {**twins.summary(table), "bad_images": _told(bad), "files": [str(file) for file in files]}


def _loaded(
    encoder: str,
    device: str,
    batch_size: int,
    workers: int,
    bearing: Tolerance,
    max_pixels: int | None,
    watch: Watch,
) -> tuple[Encoder, Reading]:
    """The encoder on its device, and how images are read."""
    loaded = load_encoder(encoder)
    for note in loaded.notes:
        watch.say(f"{encoder}: {note}")
    if max_pixels is not None:
        loaded.read = loaded.read.model_copy(update={"max_pixels": max_pixels})
    on = devices.resolve(device)
    return loaded.to(on), Reading(on, batch_size, workers, bearing, watch.advance, watch.say)


def _held(gallery: Gallery, index: str | Path | None, reading: Reading, exact_below: int) -> tuple[Index, list[BadImage]]:
    """The index, and what could not be read; a kept one was made under another tolerance, maybe."""
    held = retrieval.kept_index(gallery.origin, None if index is None else Path(index), reading.say, exact_below)
    unread = [BadImage(key, reason) for key, reason in held.contents.bad]
    total = len(held) + len(unread)
    reading.tolerance.check(unread, total, total, gallery.name)
    return held, [*gallery.rejected, *unread]


def _measured(index: Index, watch: Watch) -> dict[str, Any]:
    """Of each image that asks for the others of its class: mean average precision, recall and precision at k, in percent."""
    _, numbers = np.unique(np.array(index.contents.labels), return_inverse=True)
    return neighbours.retrieval(
        index.vectors, numbers, MEASURED, lambda done: watch.advance("measuring", done, len(index))
    )._asdict()


def _write_sheet(folder: Path, sheet: Image.Image | None) -> list[Path]:
    """`sheet.png`; none of an earlier search stays where there is none now."""
    path = folder / "sheet.png"
    if sheet is None:
        path.unlink(missing_ok=True)
        return []
    write_atomic(path, lambda temporary: sheet.save(temporary, "PNG"))
    return [path]


def _write_bad(folder: Path, bad: Sequence[BadImage]) -> list[Path]:
    path = folder / _BAD
    path.unlink(missing_ok=True)
    if not bad:
        return []
    append_jsonl(path, _told(bad))
    return [path]


def _told(bad: Sequence[BadImage]) -> list[dict[str, str]]:
    return [{"key": image.key, "reason": image.reason} for image in bad]
