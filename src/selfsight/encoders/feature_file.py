"""A Parquet file of features, written part by part.

While `F.parquet` is being made, `F.parquet.parts/` holds one Parquet file for each stretch of samples that is done, and
`manifest.json`, which says of what. A part is there whole or not at all, so that a killed process loses only what it had not
written yet, and whoever goes on computes just the samples that no part covers. At the end the parts are joined, row group by row
group, and renamed to `F.parquet`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from selfsight.data.sources import BadImage, Source
from selfsight.encoders.features import Stretch
from selfsight.errors import InputError, SelfsightError
from selfsight.runs import remove_folder, write_atomic, write_json_atomic

DTYPES = ("float32", "float16")
KEY = b"selfsight"
"""Under which a file's metadata say what it holds."""
_GROUP_BYTES, _GROUP_ROWS = 32 * 2**20, 2**16
_STORAGE: dict[str, Any] = {"use_dictionary": ["label"], "compression": {"key": "zstd", "vector.list.element": "none"}}
"""Features do not compress."""
_DECIDES = {
    "fingerprint": ("encoder", "encoder"),
    "data": ("data", "data"),
    "keys": ("images", "a list of images of length"),
    "dtype": ("dtype", "dtype"),
    "runtime": ("runtime", "runtime"),
    "read": ("read", "images read as"),
}
"""What must be as it was for a file to be gone on with: the name in the manifest that shows it, and what to call it."""

Range: TypeAlias = tuple[int, int]


class Part(NamedTuple):
    """What a part says of itself: its samples `start` to `stop`, how many of them are rows, and which could not be read."""

    path: Path
    start: int
    stop: int
    rows: int
    bad: list[BadImage]


class Parts:
    """The parts of the file `out` over `total` samples. `manifest` says of what: all of it must be as it was to go on.

    Raises `InputError` where there are parts of something else.
    """

    def __init__(self, out: Path, manifest: Mapping[str, Any], total: int) -> None:
        self.out, self.manifest, self.total = out, dict(manifest), total
        self.folder = parts_folder(out)
        before = manifest_of(out)
        if before is not None:
            _refuse_others(out, before, self.manifest)
        self.found = sorted(self._found()) if before is not None else []

    @property
    def missing(self) -> list[Range]:
        """Stretches of samples that no part covers, in order."""
        gaps, at = [], 0
        for part in [*self.found, Part(self.folder, self.total, self.total, 0, [])]:
            if part.start > at:
                gaps.append((at, part.start))
            at = max(at, part.stop)
        return gaps

    @property
    def bad(self) -> list[BadImage]:
        return [image for part in self.found for image in part.bad]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.found)

    @property
    def samples(self) -> int:
        return sum(part.stop - part.start for part in self.found)

    def add(self, content: bytes | pa.Buffer, start: int) -> None:
        """Keep a part as `encoded_part` gives it."""
        if not (self.folder / "manifest.json").is_file():
            _remove_parts_of_nobody(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.folder / "manifest.json", self.manifest)
        path = self.folder / f"{start:012d}.parquet"
        write_atomic(path, lambda temporary: _write(temporary, content), len(content))
        self.found = sorted([*(part for part in self.found if part.start != start), _part(path)])

    def join(self, about: Mapping[str, Any]) -> None:
        """Write `out`, with `about` in its metadata, and remove the parts."""
        parts = [part for part in self.found if part.rows]
        schema = pq.read_schema(parts[0].path).with_metadata({KEY: json.dumps(about).encode()})
        needed = sum(part.path.stat().st_size for part in parts)
        joined = self.folder / "joined.parquet"  # what a killed process leaves of it goes with the folder
        write_atomic(joined, lambda temporary: _join(parts, schema, temporary), needed)
        if (rows := pq.read_metadata(joined).num_rows) != self.rows:
            raise SelfsightError(
                f"{self.folder}: holds {rows} rows, {self.rows} were written; is another embed at work there? Call it again"
            )
        joined.replace(self.out)
        remove_folder(self.folder)

    def _found(self) -> Iterator[Part]:
        for path in sorted(self.folder.glob("[0-9]*.parquet")):
            try:
                yield _part(path)
            except (pa.ArrowException, OSError, KeyError, ValueError):
                path.unlink()  # a disk may damage what a rename had made whole; these samples are computed again


def _remove_parts_of_nobody(folder: Path) -> None:
    """Parts without a manifest, whose origin nobody can tell; `InputError` for a folder in which there are other things."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not re.fullmatch(r"\d{12}\.parquet|\.(manifest\.json|\d{12}\.parquet)\..+", path.name):
            raise InputError(f"{folder}: holds '{path.name}', which is not of embed; remove the folder, or give another --out")
        path.unlink()


def parts_folder(out: Path) -> Path:
    return out.with_name(out.name + ".parts")


def manifest_of(out: Path) -> dict[str, Any] | None:
    """What the unfinished file `out` is of, or None where there is none."""
    path = parts_folder(out) / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is damaged; remove the folder to begin anew, or give another --out")
    return found


def encoded_part(stretches: Sequence[Stretch], source: Source, width: int, dtype: str) -> pa.Buffer:
    """A part as the bytes of a Parquet file with the columns key, label (if any) and vector. Stretches follow one another."""
    indices = np.concatenate([stretch.indices for stretch in stretches])
    vectors = np.concatenate([stretch.vectors.reshape(len(stretch.vectors), width) for stretch in stretches])
    columns: dict[str, Any] = {"key": pa.array([source.keys[i] for i in indices.tolist()], pa.string())}
    if source.labels is not None:
        columns["label"] = pa.array(source.labels[indices])
    columns["vector"] = _column(vectors, dtype, source.location)
    bad = [[image.key, image.reason] for stretch in stretches for image in stretch.bad]
    covers = {"start": stretches[0].start, "stop": stretches[-1].stop, "bad": bad}
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(covers)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_STORAGE)
    return sink.getvalue()


def rows_a_group(width: int, dtype: str) -> int:
    """Rows of a row group: 32 MiB of them, or as many as have ever been of use."""
    return max(1, min(_GROUP_ROWS, _GROUP_BYTES // (width * np.dtype(dtype).itemsize)))


def _column(vectors: npt.NDArray[np.float32], dtype: str, where: str) -> pa.Array:
    """Vectors [n, D]."""
    with np.errstate(over="ignore"):
        stored = vectors.reshape(-1).astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        largest = f"features of {where} reach {np.abs(vectors).max():.3g}"
        raise InputError(f"--dtype {dtype}: {largest}, which it cannot hold; take float32")
    return pa.FixedSizeListArray.from_arrays(pa.array(stored), vectors.shape[1])


def _join(parts: Iterable[Part], schema: pa.Schema, path: Path) -> None:
    """Row groups are of one size, wherever the parts were cut, so that the file does not depend on that."""
    kind = schema.field("vector").type
    size = rows_a_group(kind.list_size, str(np.dtype(kind.value_type.to_pandas_dtype())))
    with pq.ParquetWriter(path, schema, **_STORAGE) as writer:
        waiting: list[pa.Table] = []
        for part in parts:
            waiting.append(pq.read_table(part.path).replace_schema_metadata(schema.metadata))
            while sum(len(table) for table in waiting) >= size:
                held = pa.concat_tables(waiting)
                writer.write_table(held.slice(0, size), size)
                waiting = [held.slice(size)]
        held = pa.concat_tables(waiting)
        if len(held):
            writer.write_table(held, size)


def _part(path: Path) -> Part:
    metadata = pq.read_metadata(path)
    covers = json.loads(metadata.metadata[KEY])
    bad = [BadImage(key, reason) for key, reason in covers["bad"]]
    return Part(path, covers["start"], covers["stop"], metadata.num_rows, bad)


def _write(path: Path, content: bytes | pa.Buffer) -> None:
    with path.open("wb") as file:
        file.write(content)


def _refuse_others(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, (shown, called) in _DECIDES.items():
        if before.get(name) != now[name]:
            other = now[shown] if now[shown] != before.get(shown) else "another of that name"
            raise InputError(
                f"{parts_folder(out)}: was begun with {called} {before.get(shown)}, which is now {other}; "
                "remove the folder to begin anew, or give another --out"
            )
