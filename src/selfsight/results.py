"""The results folder of a comparison: typed scores in `results.json` (schema 1), and what stands beside it.

::

    results.json            this file's `Results`
    per_image_masks.parquet key, encoder, method, metric, value (0 to 1), where things were measured against masks
    per_image.parquet       key, encoder, task, condition, metric, seed, label, predicted: one row an outcome
    factors.parquet         key, condition, pair (number of the scene), label, a column a factor: pictures of the task shift
    split.parquet           key, part (train, test), where selfsight made the split
    bad_images.jsonl        key, reason: files that were skipped
    assets/curves.json      [{encoder, rows: [{step, epoch, loss, ...}]}], the metrics of the runs compared
    assets/map.parquet      encoder, key, x, y, label (null without labels): features in two dimensions
    assets/thumbs.parquet   key, jpeg (bytes): small pictures of the images that the report shows
    assets/neighbours.json  [{query, neighbours: {encoder: [key, ...]}}]
    assets/looks.parquet    key, encoder (empty: the true masks), method, value (0 to 1), jpeg: what each encoder looks at

Every accuracy is in percent and every difference in percentage points.
A report needs nothing but this folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfsight.errors import InputError
from selfsight.runs import write_text_atomic

Role = Literal["incumbent", "challenger", "floor", "other"]
Decision = Literal["replace", "keep", "undecided"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderRecord(Record):
    """One encoder of a comparison and where its weights come from."""

    spec: str
    role: Role
    kind: Literal["vit", "cnn", "pixels", "other"]
    weights: str
    pool: str
    input_size: int
    input: str = ""
    feature_width: int
    parameters: int


class DataRecord(Record):
    """The images of a comparison and what was done to them."""

    train: str
    test: str | None
    n_train: int
    n_test: int
    classes: list[str]
    split: str
    group_by: str | None = None
    bad_images: int = 0
    notes: list[str] = Field(default_factory=list)


class Score(Record):
    """One number with its percentile-bootstrap interval (95 %)."""

    encoder: str
    task: str
    condition: str = "clean"
    metric: str
    value: float
    low: float
    high: float
    n: int
    seed: int = 0


class Comparison(Record):
    """Paired difference `b` minus `a`; `p` is the exact McNemar value, `p_holm` over the declared family."""

    a: str
    b: str
    task: str
    condition: str = "clean"
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    only_a: int
    only_b: int
    n: int


class Verdict(Record):
    """Should the challenger replace the incumbent?"""

    decision: Decision
    incumbent: str
    challenger: str
    endpoint: str
    margin: float
    difference: float
    low: float
    high: float
    reason: str
    needed_n: int | None = None


class Cost(Record):
    """What an encoder costs to run, as measured on this machine."""

    encoder: str
    parameters: int
    feature_width: int
    images_per_second: float
    peak_memory_mb: float
    device: str
    batch_size: int


class Labelling(Record):
    """How many images to label for a verdict, and which first."""

    count: int
    picks: list[str]
    reason: str


FLOOR = "floor"
"""The method of what looks at nothing."""


class MaskScore(Record):
    """What one `method` reaches on one measure under one encoder, or without any: a mean over pictures with its interval.

    `encoder` is a spec, or the name of a floor that looks at nothing, whose method is `FLOOR`.
    """

    encoder: str
    method: str
    metric: str
    value: float
    low: float
    high: float
    n: int


class MaskDifference(Record):
    """Paired difference over the same pictures, `b` by `method_b` minus `a` by `method_a`."""

    a: str
    b: str
    method_a: str
    method_b: str
    metric: str
    difference: float
    low: float
    high: float
    n: int


class Segmentation(Record):
    """Whether what encoders look at is where the things are. It takes no part in the verdict.

    `own` names the map that stands for each encoder where those of different kinds are compared.
    """

    masks: str
    n: int
    protocol: list[str]
    own: dict[str, str]
    scores: list[MaskScore]
    differences: list[MaskDifference]

    def score(self, name: str, method: str, metric: str) -> MaskScore | None:
        """Of an encoder by a method, or by its own map where `method` is empty; of a floor, which is the same by every one."""
        wanted = (method or self.own[name]) if name in self.own else FLOOR
        return next((s for s in self.scores if (s.encoder, s.method, s.metric) == (name, wanted, metric)), None)


class ShiftFactor(Record):
    """A factor of a drawn set and what training shows of it: [low, high] where it is `numbers`, else all of its values."""

    name: str
    training: list[Any]
    numbers: bool


class ShiftEffect(Record):
    """What one shift does to one encoder: `change` in points from the test pictures to the same scenes with `factor` shifted.

    `p` is the exact McNemar value, `p_holm` over all encoders and conditions.
    """

    encoder: str
    condition: str
    factor: str
    clean: float
    shifted: float
    change: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int


class ShiftGap(Record):
    """Whom a shift hurts more: the change of `b` minus that of `a`, scene by scene; below zero it hurts `b` more.

    `p` is that of an exact sign-flip test, `p_holm` over all pairs and conditions.
    """

    a: str
    b: str
    condition: str
    factor: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int


class SliceScore(Record):
    """What an encoder gets right of the pictures whose factor lies within `span` ([low, high], or one value).

    `outside` is the share of them with a value that training does not show. Of the test pictures, `gap` is the difference to all
    other test pictures in points with its interval, `p` that of Fisher's exact test and `p_holm` over all slices of the encoder.
    """

    encoder: str
    condition: str
    factor: str
    span: list[Any]
    outside: float
    value: float
    low: float
    high: float
    n: int
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    p: float | None = None
    p_holm: float | None = None


class ShiftSince(Record):
    """What became of the same pictures from one comparison to the next, whose training was another: `difference` in points.

    Without `span` they are all pictures of the condition. `change` says what training shows more of on their account, if any.
    `p` is the exact McNemar value, `p_holm` over all that is told.
    """

    encoder: str
    condition: str
    factor: str
    span: list[Any]
    change: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int


class Shift(Record):
    """Where encoders stop seeing: a drawn set, its splits that shift one factor, and slices by factor. Accuracy in percent."""

    data: str
    n_train: int
    n_test: int
    factors: list[ShiftFactor]
    effects: list[ShiftEffect]
    gaps: list[ShiftGap]
    slices: list[SliceScore]
    protocol: list[str]
    before: str | None = None
    since: list[ShiftSince] = Field(default_factory=list)

    def worst(self, encoder: str) -> SliceScore | None:
        """The slice of the test pictures of which it gets least right."""
        found = [s for s in self.slices if s.encoder == encoder and s.gap is not None]
        return min(found, key=lambda s: s.value, default=None)


class Results(Record):
    """Everything a comparison found."""

    schema_version: Literal[1] = 1
    title: str
    encoders: list[EncoderRecord]
    data: DataRecord
    plan: list[str]
    scores: list[Score]
    comparisons: list[Comparison]
    verdict: Verdict | None
    labelling: Labelling | None = None
    cost: list[Cost]
    segmentation: Segmentation | None = None
    shift: Shift | None = None
    provenance: dict[str, Any]

    def encoder(self, spec: str) -> EncoderRecord:
        return next(e for e in self.encoders if e.spec == spec)

    def score(self, encoder: str, task: str, metric: str, condition: str = "clean") -> Score:
        """The score of the first seed; `KeyError` names what is there."""
        for s in self.scores:
            if (s.encoder, s.task, s.metric, s.condition) == (encoder, task, metric, condition):
                return s
        known = sorted({f"{s.encoder} {s.task} {s.metric} {s.condition}" for s in self.scores})
        raise KeyError(f"no score {encoder} {task} {metric} {condition}; there are: {known}")


def write(results: Results, folder: Path) -> Path:
    path = folder / "results.json"
    write_text_atomic(path, json.dumps(results.model_dump(mode="json"), indent=1) + "\n")
    return path


def read(folder: Path | str) -> Results:
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise InputError(f"{folder}: holds no results.json; give the --out folder of 'selfsight compare'")
    try:
        return Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {where}: {first['msg']}; expected a results folder of schema 1") from None
