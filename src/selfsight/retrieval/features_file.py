"""A Parquet file of features, as `selfsight embed` writes it: key, maybe label, vector, and the encoder in the metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from selfsight.data.sources import BadImage
from selfsight.errors import DataError


class Gathered(NamedTuple):
    """Features [n, D] under their keys [n], the name of the class of each where there are classes, and the images that could not
    be read."""

    vectors: npt.NDArray[np.float32]
    keys: list[str]
    labels: list[str] | None
    bad: tuple[BadImage, ...] = ()


class FeaturesFile:
    """Opening reads the metadata alone. A `DataError` says what is missing in it.

    `images` is where they were when they were embedded, if there is still something there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        about = json.loads((_schema(self.path).metadata or {})[b"selfsight"])
        try:
            self.fingerprint, self.encoder, self.classes = str(about["fingerprint"]), str(about["encoder"]), about.get("classes")
            self.images = str(about["data"]) if "data" in about and Path(about["data"]).exists() else None
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: its metadata has no {error}; expected a file that selfsight embed wrote") from None

    def matched(self, encoder: str, fingerprint: str) -> FeaturesFile:
        """The same file, if its features are those of this encoder; else a `DataError`."""
        if self.fingerprint != fingerprint:
            raise DataError(
                f"{self.path}: holds features of {self.encoder}, which is not {encoder} with its weights and settings of now; "
                f"embed the images again, or give the encoder that they were embedded with"
            )
        return self

    def read(self) -> Gathered:
        """All of it, row group by row group, so that the vectors stand in memory once."""
        with pq.ParquetFile(self.path) as file:
            columns = [name for name in ("key", "label", "vector") if name in file.schema_arrow.names]
            width = self._width(file.schema_arrow.field("vector").type)
            vectors = np.empty((file.metadata.num_rows, width), dtype=np.float32)
            keys: list[str] = []
            labels: list[Any] = []
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns)
                if any(column.null_count for column in rows.columns):
                    raise DataError(f"{self.path}: has empty cells; expected key and vector, and label if any, in every row")
                numbers = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                vectors[len(keys) : len(keys) + len(rows)] = numbers.reshape(-1, width)
                keys += rows["key"].to_pylist()
                labels += rows["label"].to_pylist() if "label" in columns else []
        if not keys:
            raise DataError(f"{self.path}: holds no row; expected the features of at least one image")
        if not np.isfinite(vectors).all():
            raise DataError(f"{self.path}: holds features that are not finite numbers; embed the images again")
        return Gathered(vectors, keys, [self._name(label) for label in labels] if labels else None)

    def _width(self, kind: pa.DataType) -> int:
        if not pa.types.is_fixed_size_list(kind):
            raise DataError(f"{self.path}: column 'vector' is of type {kind}; expected a fixed-size list of float32 or float16")
        return int(kind.list_size)

    def _name(self, label: Any) -> str:
        known = isinstance(label, int) and self.classes and 0 <= label < len(self.classes)
        return str(self.classes[label] if known else label)


def is_features_file(location: str | Path) -> bool:
    """Whether this is a local Parquet file with a key, a vector and our metadata."""
    path = Path(location)
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        schema = _schema(path)
    except (OSError, pa.ArrowException):
        return False  # whoever opens it as a source says what is wrong with it
    return {"key", "vector"} <= set(schema.names) and b"selfsight" in (schema.metadata or {})


def _schema(path: Path) -> pa.Schema:
    with pa.OSFile(os.fsencode(path)) as file:
        return pq.read_schema(file)
