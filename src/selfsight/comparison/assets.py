"""What the report shows besides numbers: small pictures, maps of features, neighbours and training curves."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from selfsight import metrics, neighbours
from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, Source
from selfsight.runs import RunFolder, read_jsonl, write_atomic, write_json_atomic

MAP_POINTS = 600
_THUMB = 96


def write_parquet(path: Path, columns: Mapping[str, Sequence[object] | pa.Array]) -> None:
    table = pa.table(dict(columns))
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def write_thumbnails(path: Path, source: Source, indices: Iterable[int]) -> None:
    """Small JPEG pictures of some samples; those that cannot be read are left out."""
    keys, pictures = [], []
    for index in dict.fromkeys(indices):
        image = read_image(source, index)
        if isinstance(image, BadImage):
            continue
        if max(image.size) > _THUMB:
            image.thumbnail((_THUMB, _THUMB))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=85)
        keys.append(source.keys[index])
        pictures.append(data.getvalue())
    write_parquet(path, {"key": pa.array(keys, pa.string()), "jpeg": pa.array(pictures, pa.binary())})


def feature_map(vectors: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """[n, D] to [n, 2] by t-SNE of the cosine geometry (van der Maaten and Hinton 2008), through at most 50 principal axes."""
    unit = metrics.normalize(vectors)
    if len(unit) < 5:
        padded = np.zeros((len(unit), 2))
        padded[:, : min(2, unit.shape[1])] = unit[:, :2]
        return padded
    axes = min(50, *unit.shape)
    reduced = PCA(axes, random_state=seed).fit_transform(unit.astype(np.float64))
    perplexity = min(30.0, (len(unit) - 1) / 3)
    # Equal features (a collapsed or constant encoder) leave nothing to spread out.
    if reduced.std() < 1e-9:
        return np.zeros((len(unit), 2))
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=500)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)


def write_map(
    path: Path,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    keys: Sequence[str],
    labels: npt.NDArray[np.int64] | None,
    seed: int,
) -> None:
    """`map.parquet` from features of the same samples under several encoders."""
    columns: dict[str, list[object]] = {name: [] for name in ("encoder", "key", "x", "y", "label")}
    for encoder, features in vectors.items():
        points = feature_map(features, seed)
        columns["encoder"] += [encoder] * len(points)
        columns["key"] += list(keys)
        columns["x"] += points[:, 0].tolist()
        columns["y"] += points[:, 1].tolist()
        columns["label"] += [None] * len(points) if labels is None else labels.tolist()
    write_parquet(path, columns | {"label": pa.array(columns["label"], pa.int64())})


def write_curves(path: Path, runs: Mapping[str, RunFolder]) -> None:
    """`curves.json` from the metrics of the runs compared."""
    write_json_atomic(path, [{"encoder": spec, "rows": read_jsonl(run.metrics)} for spec, run in runs.items()])


def write_neighbours(
    path: Path, vectors: Mapping[str, npt.NDArray[np.float32]], keys: Sequence[str], queries: Sequence[int], count: int
) -> list[int]:
    """`neighbours.json`: nearest samples of each query under each encoder; returns all samples shown."""
    shown = list(queries)
    out: list[dict[str, object]] = [{"query": keys[q], "neighbours": {}} for q in queries]
    for encoder, features in vectors.items():
        unit = metrics.normalize(features)
        rows = unit[list(queries)]
        for _, _, index in neighbours.nearest(unit, rows, count + 1):
            for entry, query, found in zip(out, queries, index, strict=True):
                others = [int(i) for i in found if i != query][:count]
                entry["neighbours"][encoder] = [keys[i] for i in others]  # type: ignore[index]
                shown += others
    write_json_atomic(path, out)
    return shown
