"""What a fine-tuning leaves: a network with its head, the names of its answers, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from selfsight import config, metrics
from selfsight.config import Settings
from selfsight.data.decode import DecodeSettings
from selfsight.data.sources import BadImage, Source
from selfsight.data.windows import image_batches
from selfsight.encoders import TorchEncoder, load_encoder, parse_spec
from selfsight.encoders.checkpoint import read_safetensors
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.run import carried
from selfsight.errors import InputError, WeightsError
from selfsight.runs import RunFolder
from selfsight.ssl.network import IMAGE
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.start import HEADS


class Preprocessing(Settings):
    """How a picture becomes the input, as in `encoders.preprocess.Preprocess`."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: Literal["bicubic", "bilinear"]
    read: DecodeSettings = DecodeSettings()

    @property
    def prepare(self) -> Preprocess:
        return Preprocess(self.size, self.mean, self.std, self.crop, self.interpolation)

    @classmethod
    def of(cls, settings: TrainSettings) -> Preprocessing:
        """What a fine-tuning judges itself by."""
        views, tuning = settings.views, settings.finetune
        assert tuning is not None
        return cls(
            size=views.global_size,
            mean=views.mean,
            std=views.std,
            crop=tuning.crop,
            interpolation=tuning.interpolation,
            read=views.read,
        )


class Calibration(Settings):
    """On the validation part, before and after its temperature: expected calibration error in percent, loss in nats."""

    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


class ClassifierRecord(Settings):
    """`classifier.json`: all that is needed to answer with the run's network.

    `step` is that of its best weights, `validation` what they reached, `images` how many trained and judged them. With
    `multi_label` an answer is all classes above `threshold`.
    """

    schema_version: int = 1
    classes: tuple[str, ...] = Field(min_length=2)
    multi_label: bool = False
    threshold: float = Field(0.5, gt=0, lt=1)
    temperature: float = Field(gt=0)
    encoder: str
    learns: str
    step: int
    images: dict[str, int]
    validation: dict[str, float]
    calibration: Calibration
    preprocessing: Preprocessing


class Answers(NamedTuple):
    """Logits [n, classes] of the readable samples `indices` [n] of a source, and the others."""

    logits: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    bad: list[BadImage]


class Classifier:
    """A backbone with a linear head on `device`."""

    def __init__(self, folder: Path | str, classes: int, preprocessing: Preprocessing, device: torch.device | str) -> None:
        spec = f"runs/{Path(folder).resolve()}"
        encoder = load_encoder(spec)
        assert isinstance(encoder, TorchEncoder)
        head = carried(parse_spec(spec)).tensors
        weight, bias = (head.get(f"{HEADS}{IMAGE}.{name}") for name in ("weight", "bias"))
        if weight is None or bias is None or weight.shape != (classes, encoder.backbone.width):
            raise WeightsError(f"{folder}: its teacher.safetensors holds no head for {classes} classes; bring back a copy")
        self.step = int(read_safetensors(RunFolder(folder).teacher, spec)[1].get("step", 0))
        self.device, self.preprocessing = torch.device(device), preprocessing
        self.backbone = encoder.backbone.to(self.device)
        self.weight, self.bias = weight.to(self.device), bias.to(self.device)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Prepared images [B, C, S, S] -> [B, classes] float32, on the device."""
        return F.linear(self.backbone(images.to(self.device)).summary.float(), self.weight, self.bias)

    def batches(self, source: Source, batch_size: int, workers: int) -> Iterator[Answers]:
        """Once through a source in its order."""
        made = self.preprocessing
        for good, images, bad in image_batches(source, made.prepare, batch_size=batch_size, workers=workers, read=made.read):
            logits = self.logits(images).cpu().numpy() if images is not None else np.empty((0, len(self.bias)), np.float32)
            yield Answers(logits, np.array(good, dtype=np.int64), bad)


def read_record(folder: RunFolder) -> ClassifierRecord:
    """`InputError` where no fine-tuning was finished."""
    if not folder.classifier.is_file():
        how = f"go on with: selfsight finetune --out {folder.path} --resume" if folder.exists else "make one: selfsight finetune"
        raise InputError(f"{folder.path}: holds no classifier.json, as a finished fine-tuning leaves it; {how}")
    return config.build(ClassifierRecord, config.read_yaml(folder.classifier), str(folder.classifier))


def scores(logits: npt.NDArray[np.float32], labels: metrics.Labels) -> dict[str, float]:
    """What answers [n, classes] to images of these labels, or sets of them, are worth; nothing where they are not finite."""
    if not np.isfinite(logits).all():
        return {}
    found = {"val_loss": metrics.nll(logits, labels)}
    if labels.dtype == np.bool_:
        sets = labels.astype(np.bool_)
        found |= {"val_map": metrics.mean_average_precision(logits, sets), "val_macro_f1": metrics.macro_f1(logits > 0, sets)}
        found |= {"val_accuracy": float(((logits > 0) == sets).mean() * 100)}
    else:
        kinds = labels.astype(np.int64)
        found |= {"val_top1": metrics.top_k_accuracy(logits, kinds, 1)}
        found |= {"val_balanced_accuracy": metrics.balanced_accuracy(logits.argmax(1), kinds)}
    return {name: round(value, 5) for name, value in found.items()}


def calibrate(logits: npt.NDArray[np.float32], labels: metrics.Labels) -> tuple[float, Calibration]:
    """The temperature, and what it changes.

    Where every answer is right the likelihood asks for certainty, which so few images cannot vouch for: then it makes no answer
    surer than it is.
    """
    p = metrics.probabilities(logits, several=labels.ndim == 2)
    all_right = bool(((p > 0.5) == labels).all() if labels.ndim == 2 else (p.argmax(1) == labels).all())
    temperature = metrics.fit_temperature(logits, labels, least=1.0 if all_right else 0.05)
    cooled = logits / temperature
    return temperature, Calibration(
        ece_before=metrics.calibration_error(logits, labels),
        ece_after=metrics.calibration_error(cooled, labels),
        nll_before=metrics.nll(logits, labels),
        nll_after=metrics.nll(cooled, labels),
    )
