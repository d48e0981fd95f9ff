"""`predict`: images in, a file of classes and probabilities out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfsight import device as devices
from selfsight import metrics, statistics
from selfsight.api.classifier import Classifier, ClassifierRecord, read_record
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.data.holdout import in_classes_of, labels_of
from selfsight.data.sources import BadImage, Data, Source, first, open_source
from selfsight.data.tolerance import Tolerance, listed
from selfsight.errors import DataError, InputError
from selfsight.runs import RunFolder, append_jsonl, bad_list_of, place_for_file, write_atomic

_ENDINGS = (".parquet", ".csv")


def predict(
    folder: str | Path,
    images: Data,
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
    """Write `out` (.parquet or .csv) with what the fine-tuned run in `folder` answers, one row a readable image.

    Columns: key, label (where IMAGES have labels of its classes), predicted (the most probable class; for a classifier of several
    labels the list of those above its threshold, in a .csv joined by `;`), probability (of the most probable class), and
    `p_CLASS` for each class. Files that are no images are listed beside it in `out.bad_images.jsonl`. Returns a summary: images,
    bad_images, answers (how often each class), and where there are labels `top1` or `accuracy` (for several labels, of all yes
    and no) with its 95 % interval. Raises `InputError`.
    """
    watch = watch or Silent()
    path = place_for_file(out)
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"--out {out}: expected a file that ends in .parquet or .csv")
    record = read_record(RunFolder(folder))
    source = first(open_source(images), limit)
    labelled = _labelled(source, record, watch)
    made = record.preprocessing
    if max_pixels is not None:
        made = made.model_copy(update={"read": made.read.model_copy(update={"max_pixels": max_pixels})})
    classifier = Classifier(folder, len(record.classes), made, devices.resolve(device))
    listing = bad_list_of(path)
    run = _Run(record, classifier, source, labelled, tolerance(strict, max_bad), watch)
    with listed(listing):
        write_atomic(path, lambda temporary: run.write(temporary, path.suffix.lower(), batch_size, workers))
    listing.unlink(missing_ok=True)
    bad = [*source.rejected, *run.bad]
    if bad:
        append_jsonl(listing, [{"key": image.key, "reason": image.reason} for image in bad])
    return {"images": run.count, "bad_images": len(bad), "answers": run.answers(), **run.accuracy()}


def _labelled(source: Source, record: ClassifierRecord, watch: Watch) -> bool:
    """Whether the images have labels that can be compared with the answers; folders may be named after anything."""
    if source.labels is None and source.label_sets is None:
        return False
    try:
        in_classes_of(source, record.classes, source.location)
    except DataError as error:
        watch.say(f"{error}; its labels are not compared with the answers")
        return False
    if record.multi_label != (source.label_sets is not None):
        watch.say(f"{source.location}: has one label an image or lists of them, unlike the classifier; they are not compared")
        return False
    return True


class _Run:
    """Answers on their way to the file, and what is counted of them."""

    def __init__(
        self,
        record: ClassifierRecord,
        classifier: Classifier,
        source: Source,
        labelled: bool,
        bearing: Tolerance,
        watch: Watch,
    ) -> None:
        self.record, self.classifier, self.source, self.bearing, self.watch = record, classifier, source, bearing, watch
        self.labels = labels_of(source) if labelled else None
        self.bad: list[BadImage] = []
        self.count = 0
        self._given = np.zeros(len(record.classes), dtype=np.int64)
        self._right: list[Any] = []

    def write(self, path: Path, ending: str, batch_size: int, workers: int) -> None:
        """Batch by batch, so that no more than one of them is held."""
        schema = self._schema()
        if ending == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(schema.names)
                for table in self._tables(schema, batch_size, workers):
                    rows.writerows(zip(*(map(_cell, column.to_pylist()) for column in table.columns), strict=True))
            return
        with pq.ParquetWriter(path, schema) as file:
            for table in self._tables(schema, batch_size, workers):
                file.write_table(table)

    def answers(self) -> dict[str, int]:
        return dict(zip(self.record.classes, self._given.tolist(), strict=True))

    def accuracy(self) -> dict[str, float]:
        if not self._right:
            return {}
        found = statistics.bootstrap_mean(np.concatenate(self._right))
        return {("accuracy" if self.record.multi_label else "top1"): found.value, "low": found.low, "high": found.high}

    def _schema(self) -> pa.Schema:
        answer = pa.list_(pa.string()) if self.record.multi_label else pa.string()
        fields = [("key", pa.string()), *([("label", answer)] if self.labels is not None else [])]
        fields += [("predicted", answer), ("probability", pa.float64())]
        return pa.schema([*fields, *((f"p_{name}", pa.float64()) for name in self.record.classes)])

    def _tables(self, schema: pa.Schema, batch_size: int, workers: int) -> Iterator[pa.Table]:
        several = self.record.multi_label
        for logits, indices, bad in self.classifier.batches(self.source, batch_size, workers):
            self.bad += bad
            self.count += len(indices)
            self.bearing.check(self.bad, self.count + len(self.bad), len(self.source), self.source.location)
            p = metrics.probabilities(logits / self.record.temperature, several=several)
            chosen = p > self.record.threshold if several else p.argmax(1)
            self._given += chosen.sum(0) if several else np.bincount(chosen, minlength=p.shape[1])
            columns = [[self.source.keys[int(i)] for i in indices]]
            if self.labels is not None:
                known = self.labels[indices]
                columns.append(self._names(known))
                self._right.append((chosen == known).mean(1) if several else (chosen == known).astype(float))
            columns += [self._names(chosen), p.max(1).tolist() if len(p) else [], *p.T.tolist()]
            self.watch.advance("predicting", self.count + len(self.bad), len(self.source))
            yield pa.table([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema)
        if not self.count:
            why = f"; first {self.bad[0].key}: {self.bad[0].reason}" if self.bad else ""
            raise DataError(f"{self.source.location}: not one of {len(self.source)} images can be read{why}")

    def _names(self, chosen: Any) -> list[Any]:
        classes = self.record.classes
        if chosen.ndim == 1:
            return [classes[k] for k in chosen]
        return [[classes[k] for k in np.flatnonzero(row)] for row in chosen]


def _cell(value: Any) -> Any:
    return ";".join(value) if isinstance(value, list) else value
