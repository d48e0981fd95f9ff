"""A made-up results folder of the shape that `selfsight compare` leaves, small or realistic, with or without labels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from selfsight import results as results_file
from selfsight.results import (
    Comparison,
    Cost,
    DataRecord,
    EncoderRecord,
    Labelling,
    MaskDifference,
    MaskScore,
    Results,
    Score,
    Segmentation,
    Verdict,
)

INCUMBENT, CHALLENGER = "efficientnet-lite0", "runs/demo"
ENCODERS = [
    EncoderRecord(
        spec=INCUMBENT,
        role="incumbent",
        kind="cnn",
        weights="ImageNet-1k, supervised",
        pool="pooled",
        input_size=224,
        feature_width=1280,
        parameters=4_652_008,
    ),
    EncoderRecord(
        spec=CHALLENGER,
        role="challenger",
        kind="vit",
        weights="runs/demo, step 1200",
        pool="cls",
        input_size=96,
        feature_width=192,
        parameters=5_524_416,
    ),
    EncoderRecord(
        spec="runs/demo?weights=init",
        role="floor",
        kind="vit",
        weights="untrained",
        pool="cls",
        input_size=96,
        feature_width=192,
        parameters=5_524_416,
    ),
    EncoderRecord(
        spec="pixels", role="floor", kind="pixels", weights="none", pool="none", input_size=32, feature_width=3072, parameters=0
    ),
]
METRICS = [("knn", "top1_k1"), ("knn", "top1_k5"), ("knn", "top1_k20"), ("linear", "top1"), ("linear", "balanced_accuracy")]
ACCURACY = {INCUMBENT: 0.84, CHALLENGER: 0.63, "runs/demo?weights=init": 0.34, "pixels": 0.27}
PETS = ["Abyssinian", "Beagle", "Birman", "Bombay", "Boxer", "Persian", "Pug", "Samoyed", "Shiba Inu", "Sphynx"]


def keys_of(n: int) -> list[str]:
    return [f"camera-7/IMG_{index:05d}.jpg" for index in range(n)]


def build(
    folder: Path,
    *,
    classes: list[str] | None = None,
    n: int = 60,
    labels: bool = True,
    assets: bool = True,
    looks: bool = False,
    seed: int = 0,
) -> Results:
    """Write the folder and return its results."""
    rng = np.random.default_rng(seed)
    classes = (PETS if classes is None else classes) if labels else []
    folder.mkdir(parents=True, exist_ok=True)
    keys = keys_of(n)
    truth = rng.integers(0, len(classes), n) if labels else np.full(n, -1)
    outcomes = _outcomes(rng, keys, truth, len(classes)) if labels else []
    results = _results(outcomes, classes, n, keys)
    if looks:
        results = results.model_copy(update={"segmentation": _segmentation()})
        (folder / "assets").mkdir(exist_ok=True)
        _write_looks(folder / "assets" / "looks.parquet", rng, keys[:8])
    results_file.write(results, folder)
    if outcomes:
        pq.write_table(pa.Table.from_pylist(outcomes), folder / "per_image.parquet")
    bad = {"key": "camera-7/IMG_99999.jpg", "reason": "cannot identify image file 'camera-7/IMG_99999.jpg'"}
    (folder / "bad_images.jsonl").write_text(json.dumps(bad) + "\n")
    if assets:
        (folder / "assets").mkdir(exist_ok=True)
        _write_assets(folder / "assets", rng, keys, truth, labels)
    return results


def _outcomes(rng: np.random.Generator, keys: list[str], truth: np.ndarray, classes: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for encoder in ENCODERS:
        for task, metric in METRICS[:-1]:
            right = rng.random(len(keys)) < ACCURACY[encoder.spec] - (0.05 if task == "knn" else 0)
            said = np.where(right, truth, (truth + rng.integers(1, classes, len(keys))) % classes)
            rows += [
                {
                    "key": key,
                    "encoder": encoder.spec,
                    "task": task,
                    "condition": "clean",
                    "metric": metric,
                    "seed": 0,
                    "label": int(a),
                    "predicted": int(b),
                }
                for key, a, b in zip(keys, truth, said, strict=True)
            ]
    return rows


def _right(outcomes: list[dict[str, object]], encoder: str, task: str, metric: str) -> np.ndarray:
    metric = "top1" if metric == "balanced_accuracy" else metric
    found = [row for row in outcomes if (row["encoder"], row["task"], row["metric"]) == (encoder, task, metric)]
    return np.array([row["label"] == row["predicted"] for row in found], dtype=float)


def _results(outcomes: list[dict[str, object]], classes: list[str], n: int, keys: list[str]) -> Results:
    scores, comparisons = [], []
    for task, metric in METRICS if outcomes else []:
        for encoder in ENCODERS:
            value = 100 * _right(outcomes, encoder.spec, task, metric).mean()
            half = 196 * np.sqrt(value / 100 * (1 - value / 100) / n)
            scores.append(
                Score(encoder=encoder.spec, task=task, metric=metric, value=value, low=value - half, high=value + half, n=n)
            )
        for a, b in [(INCUMBENT, CHALLENGER), ("runs/demo?weights=init", CHALLENGER), ("pixels", CHALLENGER)]:
            right_a, right_b = (_right(outcomes, spec, task, metric) for spec in (a, b))
            difference = 100 * (right_b - right_a).mean()
            half = 196 * (right_b - right_a).std() / np.sqrt(n)
            comparisons.append(
                Comparison(
                    a=a,
                    b=b,
                    task=task,
                    metric=metric,
                    difference=difference,
                    low=difference - half,
                    high=difference + half,
                    p=0.0004,
                    p_holm=0.0012,
                    only_a=int((right_a > right_b).sum()),
                    only_b=int((right_b > right_a).sum()),
                    n=n,
                )
            )
    return Results(
        title="Pets: efficientnet-lite0 or runs/demo",
        encoders=ENCODERS,
        data=DataRecord(
            train="data/pets/train",
            test="data/pets/test" if classes else None,
            n_train=4 * n,
            n_test=n if classes else 0,
            classes=classes,
            split="given: two folders" if classes else "none: no labels",
            group_by="animal",
            bad_images=1,
            notes=["12 duplicates of training images left the test part"],
        ),
        plan=[
            "Endpoint: linear probe, top-1, on the test part",
            "Replace when the whole 95 % interval lies above the margin of 1.0 point; keep when it lies below",
            "Intervals: 2,000 bootstrap draws of the test images",
        ],
        scores=scores,
        comparisons=comparisons,
        verdict=_verdict(comparisons) if outcomes else None,
        labelling=None
        if outcomes
        else Labelling(
            count=150, picks=keys[:24], reason="150 labelled images tell the two apart where they disagree on one image in ten."
        ),
        cost=[
            Cost(
                encoder=e.spec,
                parameters=e.parameters,
                feature_width=e.feature_width,
                images_per_second=speed,
                peak_memory_mb=410.0,
                device="cpu, 2 threads",
                batch_size=32,
            )
            for e, speed in zip(ENCODERS, (61.2, 148.0, 148.9, 5400.0), strict=True)
        ],
        provenance={
            "created": "2026-01-05T10:00:00Z",
            "seed": 0,
            "environment": {
                "python": "3.12.3",
                "versions": {"selfsight": "0.1.0", "torch": "2.9.0"},
                "command": ["selfsight", "compare", "data/pets/train", "--encoder", "runs/demo", "--out", "my results"],
            },
        },
    )


def _verdict(comparisons: list[Comparison]) -> Verdict:
    main = next(c for c in comparisons if (c.a, c.b, c.task, c.metric) == (INCUMBENT, CHALLENGER, "linear", "top1"))
    return Verdict(
        decision="keep",
        incumbent=INCUMBENT,
        challenger=CHALLENGER,
        endpoint="linear top1",
        margin=1.0,
        difference=main.difference,
        low=main.low,
        high=main.high,
        reason="The whole interval lies below the margin: the challenger is worse on these images.",
    )


OWN = {INCUMBENT: "norm", CHALLENGER: "attention", "runs/demo?weights=init": "attention"}


def _segmentation() -> Segmentation:
    """The challenger looks at things, the others hardly do."""
    values = {INCUMBENT: 31.0, CHALLENGER: 46.5, "runs/demo?weights=init": 22.0, "centred box": 38.0, "whole picture": 27.5}
    scores = []
    for name, value in values.items():
        own = OWN.get(name, "floor")
        for method, metric, more in ((own, "jaccard_60", 0), ("heads", "jaccard_60", 9), ("tokencut", "corloc", 20)):
            if name in OWN and not (method == "heads" and own == "norm"):
                place = {"encoder": name, "method": method, "metric": metric, "value": value + more}
                scores.append(MaskScore(**place, low=value + more - 3, high=value + more + 3, n=120))
        if name not in OWN:
            scores += [
                MaskScore(encoder=name, method="floor", metric=metric, value=value, low=value - 3, high=value + 3, n=120)
                for metric in ("jaccard_60", "corloc")
            ]
    pairs = [(INCUMBENT, CHALLENGER), ("runs/demo?weights=init", CHALLENGER)]
    pairs += [(floor, encoder) for floor in ("centred box", "whole picture") for encoder in (INCUMBENT, CHALLENGER)]
    differences = [
        MaskDifference(
            a=a,
            b=b,
            method_a=OWN.get(a, "floor"),
            method_b=OWN[b],
            metric="jaccard_60",
            difference=values[b] - values[a],
            low=values[b] - values[a] - 4,
            high=values[b] - values[a] + 4,
            n=120,
        )
        for a, b in pairs
    ]
    heads = {"method_a": "heads", "method_b": "heads", "metric": "jaccard_60", "n": 120}
    differences.append(
        MaskDifference(a="runs/demo?weights=init", b=CHALLENGER, difference=24.5, low=20.0, high=29.0, **heads)  # type: ignore[arg-type]
    )
    return Segmentation(
        masks="data/pets/masks", n=120, protocol=["pictures: 120"], own=OWN, scores=scores, differences=differences
    )


def _write_looks(path: Path, rng: np.random.Generator, keys: list[str]) -> None:
    columns = ["", *OWN]
    rows = [
        {"key": key, "encoder": encoder, "method": OWN.get(encoder, ""), "value": 0.4, "jpeg": _thumb(rng, number)}
        for number, key in enumerate(keys)
        for encoder in columns
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_assets(folder: Path, rng: np.random.Generator, keys: list[str], truth: np.ndarray, labels: bool) -> None:
    rows = []
    for rank, encoder in enumerate(ENCODERS[:3]):
        centres = rng.normal(size=(max(1, truth.max() + 1), 2)) * (6 - 2 * rank)
        for key, label in zip(keys, truth, strict=True):
            x, y = centres[max(label, 0)] + rng.normal(size=2)
            rows.append({"encoder": encoder.spec, "key": key, "x": x, "y": y, "label": int(label) if labels else None})
    pq.write_table(pa.Table.from_pylist(rows), folder / "map.parquet")
    thumbs = [
        {"key": key, "jpeg": _thumb(rng, int(label) if labels else i)}
        for i, (key, label) in enumerate(zip(keys, truth, strict=True))
        if i < 0.9 * len(keys)
    ]
    pq.write_table(pa.Table.from_pylist(thumbs), folder / "thumbs.parquet")
    (folder / "curves.json").write_text(json.dumps([{"encoder": CHALLENGER, "rows": _curve(rng)}]))
    near = [
        {"query": key, "neighbours": {e.spec: [keys[(i * 7 + j + 3) % len(keys)] for j in range(6)] for e in ENCODERS[:2]}}
        for i, key in enumerate(keys[:6])
    ]
    (folder / "neighbours.json").write_text(json.dumps(near))


def _thumb(rng: np.random.Generator, label: int) -> bytes:
    hue = np.array([(label * 67) % 255, (label * 131 + 80) % 255, (label * 29 + 160) % 255])
    yy, xx = np.mgrid[0:64, 0:64] / 64.0
    wave = 0.5 + 0.5 * np.sin(6 * xx * (1 + label % 4) + 5 * yy + rng.random() * 6)
    pixels = np.clip(hue * wave[..., None] + rng.normal(0, 12, (64, 64, 3)) + 30, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _curve(rng: np.random.Generator) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for step in range(0, 1200, 10):
        share = 0.45 + 0.55 * np.exp(-step / 300) + rng.normal(0, 0.01)
        rows.append(
            {
                "step": step,
                "epoch": step / 100,
                "loss": share * 6.93,
                "loss_over_chance": share,
                "teacher_entropy": share * 5 + 1,
                "lr": 5e-4 * min(1, step / 120) * (1 - step / 1300),
                "images_per_second": 300.0,
            }
        )
        if step % 200 == 0:
            rows.append(
                {"step": step, "epoch": step / 100, "knn_top1": 30 + 28 * (1 - np.exp(-step / 400)), "rankme": 20 + step / 15}
            )
    return rows
