"""`finetune`: an encoder with its head cut off and a new one trained, on images with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsight import config
from selfsight.api.classifier import Classifier, ClassifierRecord, Preprocessing, calibrate, scores
from selfsight.api.judging import Judge, Parts, parts_as_named
from selfsight.api.starting import Handed, Initial, saved_start
from selfsight.api.training import begin, can_go_on, changes, load_settings, plan_training, reading, told_tolerance, unused
from selfsight.api.training import seen_from_anywhere as anywhere
from selfsight.api.watch import Silent, Watch
from selfsight.data.holdout import labels_of
from selfsight.data.sources import BadImage, Data, first, open_source
from selfsight.encoders import extract
from selfsight.errors import ConfigError, InputError
from selfsight.evaluate.heads import Head, fitted_head
from selfsight.runs import RunFolder, write_text_atomic
from selfsight.ssl import parallel
from selfsight.ssl.changing import continued, record
from selfsight.ssl.estimate import estimate
from selfsight.ssl.fit import Training
from selfsight.ssl.memory import within_memory
from selfsight.ssl.network import IMAGE
from selfsight.ssl.recipes import Derived
from selfsight.ssl.recipes.finetune import balanced
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.start import HEADS
from selfsight.ssl.tuning import TuningSettings
from selfsight.ssl.world import BY_ITSELF, World


def finetune(
    encoder: str | None = None,
    data: Data | None = None,
    out: str | Path = "runs/classifier",
    *,
    validation: str | Path | None = None,
    group_by: str | None = None,
    freeze: bool = False,
    lora: int | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    patience: float | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    strict: bool | None = None,
    max_bad: float | None = None,
    max_pixels: int | None = None,
    config: str | Path | None = None,
    set: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Fine-tune `encoder` on the labels of `data`; leaves a run folder whose network answers with classes (`predict`).

    A linear probe on frozen features becomes the head, then all layers learn, the first ones slowest (LP-FT, Kumar et al. 2022).
    With `freeze` the head alone learns, with `lora` beside it adapters of that rank in a ViT's attention. Labels may be one an
    image, or lists. A fifth of each class is held back to judge by (whole groups of the column `group_by`), or the images of
    `validation` are. Of `data` with a column `split` the rows `train` train, rows `validation` judge, and others take no
    part. The weights that are best by this are kept, and without better ones for `patience` epochs (5) the training ends.
    Classes of unlike size weigh the same in the loss. `mixup` and `cutmix` are the a of their Beta(a, a).

    `resume` goes on with the run in `out`, under other settings as far as `resume` of a training allows it. Returns a summary:
    that of a training, with `validation`, `temperature` and `calibration` of `classifier.json`. Raises `InputError` for what is
    wrong beforehand, else as `train` does.
    """
    given: dict[str, Any] = {"init": encoder, "epochs": epochs, "minutes": minutes, "limit": limit, "seed": seed}
    given |= {"device": device, "batch_size": batch_size}
    given |= {"tolerance": told_tolerance(strict, max_bad), "views": reading(None, max_pixels)}
    given |= {"objective": _told(mixup=mixup, cutmix=cutmix)}
    tuning = {"validation": None if validation is None else str(anywhere(validation)), "group_by": group_by, "lora": lora}
    given |= {"finetune": _told(**tuning, patience=patience, learns=_learns(freeze, lora))}
    with parallel.joined() as world:
        watch = watch if watch is not None and world.leads else Silent()
        if resume:
            if data is not None:
                given["data"] = data
            return _go_on(RunFolder(out), given, config, set, watch, world)
        if encoder is None or data is None:
            example = "selfsight finetune efficientnet-lite0 labelled --out DIR"
            raise ConfigError(f"finetune: expected ENCODER and DATA, such as: {example}")
        return _begin(data, unused(out), given, config, set, watch, world)


def _told(**values: Any) -> dict[str, Any] | None:
    return {key: value for key, value in values.items() if value is not None} or None


def _learns(freeze: bool, lora: int | None) -> str | None:
    if freeze and lora is not None:
        raise ConfigError("--freeze: the head alone learns, and --lora adds adapters; give one of them")
    return "head" if freeze else None if lora is None else "adapters"


def _begin(
    data: Data,
    folder: RunFolder,
    given: dict[str, Any],
    file: str | Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
    watch: Watch,
    world: World,
) -> dict[str, Any]:
    said = _merged(given, file, overrides)
    tuning = config.build(TuningSettings, said.get("finetune") or {}, "finetune")
    limit, seed = (value if isinstance(value, int) else None for value in (said.get("limit"), said.get("seed")))
    source = first(world.in_turn(lambda: open_source(data)), limit)
    seen_as = anywhere(data)
    places = [seen_as] if isinstance(seen_as, str) else list(seen_as)
    parts = world.in_turn(lambda: parts_as_named(source, tuning, seed or 0, places))
    return start_on(parts, folder, given, watch, world, seen_as, file, overrides, tuning.learns)


def start_on(
    parts: Parts,
    folder: RunFolder,
    given: dict[str, Any],
    watch: Watch,
    world: World = BY_ITSELF,
    data: Any = None,
    file: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    learns: str = "all",
) -> dict[str, Any]:
    """A new run on images that are divided already; `data` is where they come from, if a resume is to divide them again."""
    handed = Handed()
    initial = world.in_turn(lambda: handed.initial(given["init"], "encoder"))
    assert initial is not None
    initial.check_summary()
    found = {"best_by": _measure(parts), "splits": list(parts.splits)}
    given["finetune"] = (given.get("finetune") or {}) | _as_brought(initial) | found
    settings, derived, bad = world.first(
        lambda: plan_training(parts.train, "finetune", None, given, file, overrides, world.cores, handed, learns)
    )
    settings = settings.model_copy(update={"data": data or settings.data, "strategy": "ddp"})
    parallel.check(settings, world)
    head, unread = world.first(lambda: _head(initial, parts, settings, world.device(settings.device), watch))
    start = initial.tensors(settings) | {f"{HEADS}{IMAGE}.weight": head.weight, f"{HEADS}{IMAGE}.bias": head.bias}
    with within_memory(settings, folder):
        expected = estimate(settings, parts.train, world, start)
    probed = f"{initial.encoder.weights}; head: linear probe on its frozen features, C = {head.strength:g}"
    watch.on_plan(settings, [*_also(settings, parts, probed), *(row for row in derived if row.key != "init")], expected)
    for note in (*(f"{initial.spec.text}: {note}" for note in initial.notes), *parts.notes):
        watch.say(note)
    world.first(lambda: begin(folder, list({image.key: image for image in (*bad, *unread)}.values())))
    return _run(settings, parts, folder, watch, world, start, resume=False)


def _merged(given: Mapping[str, Any], file: str | Path | None, over: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as far as they are said: the images must be divided by them before anything is planned for one part."""
    tree = dict(over) if isinstance(over, Mapping) else config.parse_overrides(over)
    told = {key: value for key, value in given.items() if value is not None}
    return config.merge(config.merge(config.read_yaml(file) if file is not None else {}, told), tree)


def _as_brought(initial: Initial) -> dict[str, Any]:
    """How the encoder cuts and resizes its pictures, as the validation part is judged; and whether it brings statistics."""
    prepare = initial.encoder.prepare
    untrained = initial.spec.family == "random" or initial.spec.options.get("weights") == "init"
    return {"norm": "batch" if untrained else "kept", "crop": prepare.crop_pct, "interpolation": prepare.interpolation}


def _measure(parts: Parts) -> str:
    if parts.labels.ndim == 2:
        return "val_map"
    counts = np.bincount(parts.labels, minlength=len(parts.train.classes))
    return "val_balanced_accuracy" if balanced(tuple(counts.tolist())) else "val_top1"


def _also(settings: TrainSettings, parts: Parts, probed: str) -> list[Derived]:
    """Lines of the plan that no recipe makes."""
    tuning = settings.finetune
    assert tuning is not None
    end = f"the best weights are kept; the end is {tuning.patience:g} epochs after them"
    return [
        Derived("init", settings.init, probed),
        Derived("finetune.validation", tuning.validation or "a part of DATA", parts.held),
        Derived("finetune.best_by", tuning.best_by, end),
    ]


def _head(initial: Initial, parts: Parts, settings: TrainSettings, on: torch.device, watch: Watch) -> tuple[Head, list[BadImage]]:
    """The probe of the features that the training begins with."""
    encoder = initial.encoder
    made = Preprocessing.of(settings)
    encoder.prepare, encoder.read, encoder.input_size = made.prepare, made.read, made.size

    def advance(done: int, total: int, remark: str) -> None:
        watch.advance("linear probe", done, total)

    found = extract(encoder, parts.train, device=on, tolerance=settings.tolerance, workers=settings.workers, progress=advance)
    tuning = settings.finetune
    groups = None if tuning is None or tuning.group_by is None else parts.train.groups(tuning.group_by)[found.indices]
    labels = parts.labels[found.indices]
    often = parts.train.weights()
    head = fitted_head(
        found.vectors,
        labels,
        len(parts.train.classes),
        groups=groups,
        weights=None if often is None else often[found.indices],
        seed=settings.seed,
        device=str(on),
    )
    encoder.to("cpu")
    return head, found.bad


def _go_on(
    folder: RunFolder,
    given: dict[str, Any],
    file: str | Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
    watch: Watch,
    world: World,
) -> dict[str, Any]:
    if not folder.exists:
        raise InputError(f"{folder.path}: is no run to resume; expected a folder as 'selfsight finetune' makes it")
    before = load_settings(folder)
    if before.finetune is None:
        raise InputError(f"{folder.path}: is no fine-tuning; go on with: selfsight train --out {folder.path} --resume")
    settings = continued(before, changes(given, file, overrides), folder)
    can_go_on(folder)
    parallel.check(settings, world)
    source = first(world.in_turn(lambda: open_source(settings.data)), settings.limit)
    assert settings.finetune is not None
    parts = parts_as_named(source, settings.finetune, settings.seed)
    if len(parts.train) != settings.images:
        now = f"{len(parts.train)} training images now, {settings.images} when the run began"
        raise InputError(f"{settings.data}: holds {now}; start a new run")
    if said := world.first(lambda: record(before, settings, folder)):
        watch.say(said)
    return go_on_with(settings, parts, folder, watch, world)


def go_on_with(
    settings: TrainSettings, parts: Parts, folder: RunFolder, watch: Watch, world: World = BY_ITSELF
) -> dict[str, Any]:
    """Take up a run from its last checkpoint, or from its start where it has none."""
    resumed = can_go_on(folder)
    start = None if resumed else saved_start(folder, settings)
    return _run(settings, parts, folder, watch, world, start, resume=resumed)


def _run(
    settings: TrainSettings,
    parts: Parts,
    folder: RunFolder,
    watch: Watch,
    world: World,
    start: Mapping[str, Tensor] | None,
    *,
    resume: bool,
) -> dict[str, Any]:
    judge = Judge(parts.validation, Preprocessing.of(settings), settings.workers, settings.tolerance, world)
    on = world.device(settings.device)
    with within_memory(settings, folder):
        training = Training(
            settings, parts.train, folder, probe=judge.probe(on), watcher=watch, resume=resume, world=world, start=start
        )
        summary = training.run()
    made = world.first(lambda: _finish(settings, parts, folder, on))
    training.bad.add(judge.bad, len(parts.train) + len(parts.validation))
    return {key: value for key, value in summary.items() if not key.startswith("val_")} | {
        "bad_images": len(training.bad),
        "best_step": made.step,
        "temperature": made.temperature,
        "validation": made.validation,
        "calibration": made.calibration.model_dump(),
    }


def _finish(settings: TrainSettings, parts: Parts, folder: RunFolder, on: torch.device) -> ClassifierRecord:
    """`classifier.json`, from what the best weights answer to the validation part."""
    made, tuning, held = Preprocessing.of(settings), settings.finetune, parts.validation
    assert tuning is not None
    classifier = Classifier(folder.path, len(held.classes), made, on)
    answers = list(classifier.batches(held, 64, settings.workers))
    logits = np.concatenate([each.logits for each in answers])
    labels = labels_of(held)[np.concatenate([each.indices for each in answers])]
    temperature, calibration = calibrate(logits, labels)
    found = ClassifierRecord(
        classes=held.classes,
        multi_label=labels.ndim == 2,
        temperature=temperature,
        encoder=settings.init or "",
        learns=tuning.learns,
        step=classifier.step,
        images={"train": len(parts.train), "validation": len(labels)},
        validation=scores(logits, labels),
        calibration=calibration,
        preprocessing=made,
    )
    write_text_atomic(folder.classifier, found.model_dump_json(indent=1) + "\n")
    return found
