"""Fine-tuning as a task of a comparison: every encoder gets the same search, and test images are looked at once, after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selfsight.api.classifier import Classifier, read_record
from selfsight.api.finetuning import go_on_with, start_on
from selfsight.api.judging import Parts, parts_of
from selfsight.api.starting import Handed, Initial
from selfsight.api.training import load_settings, plan_training
from selfsight.api.watch import Silent, Watch
from selfsight.data.holdout import labels_of
from selfsight.data.tolerance import Tolerance
from selfsight.errors import SelfsightError
from selfsight.evaluate import ImageSet, ImageTask, Predictions
from selfsight.runs import RunFolder, remove_folder
from selfsight.ssl.tuning import TuningSettings
from selfsight.ssl.validating import LOSS

FACTORS = (1 / 3, 1.0, 3.0)
"""Times the recipe's learning rate: the search that every encoder gets."""
EPOCHS, PATIENCE = 10.0, 3.0


class _Tuned(NamedTuple):
    """A run of the search, what it reached on the validation part, and at which rate."""

    folder: RunFolder
    reached: tuple[float, float]
    factor: float


class FineTune(ImageTask):
    """The whole network at three learning rates, ten epochs at most, the best by a fifth of the training images.

    Runs are kept in `folder`. One that is finished is not made again, and one that was broken off goes on.
    """

    primary = "top1"
    random = True

    def __init__(self, folder: Path, watch: Watch, tolerance: Tolerance, workers: int) -> None:
        self.folder, self.watch, self.tolerance, self.workers = folder, watch, tolerance, workers

    def check(self, encoder: str) -> None:
        Initial(encoder, "--tasks finetune, encoder").check_summary()

    def run(self, images: ImageSet, *, seed: int, device: str) -> Iterator[Predictions]:
        parts = parts_of(images.train, TuningSettings(group_by=images.group_by), seed)
        best = max((self._tuned(images, parts, seed, device, factor) for factor in FACTORS), key=lambda run: run.reached)
        record = read_record(best.folder)
        classifier = Classifier(best.folder.path, len(record.classes), record.preprocessing, device)
        answers = list(classifier.batches(images.test, 64, self.workers))
        if sum(len(each.indices) for each in answers) != len(images.test):
            raise SelfsightError(f"{images.test.location}: some test images can no longer be read; start again")
        predicted = np.concatenate([each.logits for each in answers]).argmax(1)
        chosen = f"{best.factor:.2g} x the recipe's rate, the best of {len(FACTORS)} by the validation part"
        yield Predictions("top1", predicted, f"{chosen}: {best.folder.path}")

    def _tuned(self, images: ImageSet, parts: Parts, seed: int, device: str, factor: float) -> _Tuned:
        handed = Handed()
        initial = handed.initial(images.encoder)
        assert initial is not None
        name = _name(initial, parts, seed, factor)
        folder, watch = RunFolder(self.folder / name), _Progress(self.watch, f"fine-tuning {images.encoder}, rate x {factor:.2g}")
        if folder.exists and not folder.classifier.is_file():
            go_on_with(load_settings(folder), parts, folder, watch)
        elif not folder.exists:
            given: dict[str, Any] = {"init": images.encoder, "seed": seed, "device": device, "workers": self.workers}
            given |= {"epochs": EPOCHS, "tolerance": self.tolerance.model_dump()}
            given |= {"finetune": {"patience": PATIENCE, "group_by": images.group_by}}
            planned = plan_training(parts.train, "finetune", None, given, None, (), None, handed)[0]
            given["optimizer"] = {"learning_rate": factor * planned.optimizer.learning_rate}
            start_on(parts, folder, given, watch)
        remove_folder(folder.checkpoint.parent)  # it is finished; what is needed of it is its best weights
        tuning, found = load_settings(folder).finetune, read_record(folder).validation
        assert tuning is not None
        return _Tuned(folder, (found[tuning.best_by], -found[LOSS]), factor)


FORMAT = 1
"""Part of the name of every run: another recipe makes all kept runs stale."""


def _name(initial: Initial, parts: Parts, seed: int, factor: float) -> str:
    """Of everything that decides a run."""
    total = hashlib.blake2b(digest_size=6)
    for text in (
        initial.encoder.fingerprint,
        repr((FORMAT, seed, factor, EPOCHS, PATIENCE)),
        *parts.train.keys,
        *parts.validation.keys,
    ):
        total.update(text.encode() + b"\0")
    for source in (parts.train, parts.validation):
        total.update(labels_of(source).tobytes())
        for index in range(len(source)):
            try:
                total.update(source.mark(index))
            except OSError:
                total.update(b"unreadable")
    return f"{''.join(c if c.isalnum() else '-' for c in initial.spec.text)[-40:]}-{total.hexdigest()}"


class _Progress(Silent):
    """One bar for a whole run."""

    def __init__(self, watch: Watch, what: str) -> None:
        self.watch, self.what = watch, what

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        self.watch.advance(self.what, round(1000 * progress), 1000)
