"""`embed`: images in, a Parquet file of features out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selfsight import device as devices
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.data.sources import Source, first, open_source
from selfsight.data.tolerance import listed
from selfsight.encoders import Encoder, Features, extract, load_encoder
from selfsight.errors import InputError
from selfsight.runs import append_jsonl, environment, write_atomic


def embed(
    encoder: str,
    data: str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Write `out` with columns key, label (if any) and vector (fixed-size list of float32), one row a readable image.

    The encoder's provenance stands in the schema metadata under `selfsight`; files that are no images are listed in
    `bad_images.jsonl` beside `out`. More unreadable images than `max_bad` percent stop the work, with `strict` the first one
    does. Returns a summary (images, feature_width, images_per_second, bad_images).
    """
    watch = watch or Silent()
    path = Path(out)
    if path.suffix != ".parquet":
        raise InputError(f"--out {out}: expected a file that ends in .parquet")
    loaded = load_encoder(encoder)
    for note in loaded.notes:
        watch.say(f"{encoder}: {note}")
    source = first(open_source(data), limit)

    def report(done: int, total: int, remark: str) -> None:
        watch.advance(encoder, done, total)
        if remark:
            watch.say(remark)

    on = devices.resolve(device)
    listing = path.parent / "bad_images.jsonl"
    bearing = tolerance(strict, max_bad)
    if max_pixels is not None:
        loaded.read = loaded.read.model_copy(update={"max_pixels": max_pixels})
    with listed(listing):
        found = extract(loaded, source, device=on, batch_size=batch_size, workers=workers, tolerance=bearing, progress=report)
    table = _table(loaded, source, found)
    write_atomic(path, lambda temporary: pq.write_table(table, temporary))
    bad = [*source.rejected, *found.bad]
    listing.unlink(missing_ok=True)
    if bad:
        append_jsonl(listing, [{"key": b.key, "reason": b.reason} for b in bad])
    return {
        "images": len(found.indices),
        "feature_width": loaded.feature_width,
        "images_per_second": found.images_per_second,
        "cached": found.cached,
        "bad_images": len(bad),
    }


def _table(encoder: Encoder, source: Source, found: Features) -> pa.Table:
    """A row for each readable image; the encoder's provenance in the metadata."""
    columns: dict[str, Any] = {"key": pa.array([source.keys[i] for i in found.indices], pa.string())}
    if source.labels is not None:
        columns["label"] = pa.array(source.labels[found.indices])
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(found.vectors.reshape(-1)), encoder.feature_width)
    about = {
        "encoder": encoder.spec,
        "weights": encoder.weights,
        "pool": encoder.pool,
        "input_size": encoder.input_size,
        "fingerprint": encoder.fingerprint,
        "classes": list(source.classes),
        "environment": environment(),
    }
    return pa.table(columns).replace_schema_metadata({"selfsight": json.dumps(about)})
