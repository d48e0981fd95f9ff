"""`runs/NAME`: the teacher that a training leaves in its run folder, or what it started from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from selfsight import config
from selfsight.data.views import ViewSettings
from selfsight.encoders import architecture, checkpoint, deployed, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.deployed import Head
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.encoders.untrained import born
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import Backbone, BackboneSettings
from selfsight.runs import RunFolder

_PART, _CLASSIFIER = "backbone.", "heads.image."


def load(spec: Spec) -> Encoder:
    """Options `weights` (teacher, or init: what it started from), `size`, `pool` and those of the preprocessing."""
    run = RunFolder(spec.path)
    if not run.exists:
        raise WeightsError(f"{spec.text}: '{run.path}' is no run folder; expected one with config.yaml and teacher.safetensors")
    settings, views, seed = _configured(spec, run)
    backbone = born(spec, settings, seed)
    notes: list[str] = []
    name = run.path.resolve().name
    if _file(spec, run) == run.teacher:
        step, notes = _load(spec, run, run.teacher, backbone)
        weights = f"selfsight run {name}{step}"
    elif began := config.read_yaml(run.config).get("init"):
        _, notes = _load(spec, run, run.init, backbone)
        weights = f"what run {name} started from: {began}"
    else:
        weights = f"untrained: what run {name} started from (seed {seed})"
    prepare = architecture.preprocess_of(spec, _usual(run, views))
    head = _deployed(spec, run)
    encoder = TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), weights, head)
    encoder.read = views.read
    encoder.notes += notes if head is None else []
    return encoder


def _usual(run: RunFolder, views: ViewSettings) -> Preprocess:
    """A fine-tuning was judged on pictures cut as its encoder cuts them; a training sees parts of all sizes."""
    size, tuned = views.global_size, config.read_yaml(run.config).get("finetune")
    usual = Preprocess(size, views.mean, views.std, preprocess.plain_crop(size))
    if not isinstance(tuned, Mapping):
        return usual
    return replace(usual, crop_pct=tuned["crop"], interpolation=tuned["interpolation"])


def _deployed(spec: Spec, run: RunFolder) -> Head | None:
    """The classifier that a fine-tuning trained, if it is asked for."""
    if not deployed.asked_for(spec):
        return None
    if not run.classifier.is_file():
        raise WeightsError(
            f"{spec.text}: 'pool={deployed.POOL}' needs a classifier, and the run has none; make one with finetune"
        )
    found = {key: tensor for key, tensor in carried(spec).tensors.items() if key.startswith(_CLASSIFIER)}
    head = deployed.head_of(spec, found)
    assert head is not None
    try:
        names = tuple(map(str, json.loads(run.classifier.read_text(encoding="utf-8"))["classes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{spec.text}: '{run.classifier}' is damaged ({error!r}); finish the fine-tuning again") from None
    return head._replace(classes=head.classes or names, own=False)


def _configured(spec: Spec, run: RunFolder) -> tuple[BackboneSettings, ViewSettings, int]:
    try:
        values = config.read_yaml(run.config)
        where = f"{run.config}, "
        backbone = config.build(BackboneSettings, _section(values, "backbone"), where + "backbone")
        views = config.build(ViewSettings, _section(values, "views"), where + "views")
    except ConfigError as error:
        raise WeightsError(f"{spec.text}: {error}") from None
    seed = values.get("seed", 0)
    if not isinstance(seed, int):
        raise WeightsError(f"{spec.text}: {run.config}: 'seed' must be a whole number, got {seed!r}")
    return backbone, views, seed


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    if not isinstance(section, Mapping):
        raise ConfigError(f"the run's config.yaml has no section '{name}'; expected the config.yaml that a training wrote")
    return section


class Carried(NamedTuple):
    """What a run holds besides its backbone: `objective` is the name of what it was trained with, `tensors` are its heads."""

    objective: str
    tensors: dict[str, Tensor]


def carried(spec: Spec) -> Carried:
    """The heads under their names in the run's file; none where the run has written no weights."""
    run = RunFolder(spec.path)
    path = _file(spec, run)
    found = checkpoint.read_safetensors(path, spec.text)[0] if path.is_file() else {}
    objective = config.read_yaml(run.config).get("objective")
    name = objective.get("name", "") if isinstance(objective, Mapping) else ""
    return Carried(str(name), {key: tensor for key, tensor in found.items() if not key.startswith(_PART)})


def _file(spec: Spec, run: RunFolder) -> Path:
    return run.teacher if spec.choice("weights", ("teacher", "init")) == "teacher" else run.init


def _load(spec: Spec, run: RunFolder, path: Path, backbone: Backbone) -> tuple[str, list[str]]:
    """Put the file's backbone into `backbone`; returns at which step it was, and notes."""
    if not path.is_file():
        missing = "yet: the training has not written a checkpoint; finish or resume it, or take ?weights=init"
        if path == run.init:
            missing = "although it started from weights; take the encoder it names in config.yaml"
        raise WeightsError(f"{spec.text}: '{run.path}' holds no {path.name} {missing}")
    found, metadata = checkpoint.read_safetensors(path, spec.text)
    ours = {key: tensor for key, tensor in found.items() if key.startswith(_PART)}
    advice = f"{path.name} and {run.config.name} are not of the same training."
    fitted = state.fit(ours, backbone.net.state_dict(), spec.text, backbone.settings.name, advice=advice)
    backbone.net.load_state_dict(fitted.tensors)
    step = f", step {metadata['step']}" if "step" in metadata else ""
    head = len(found) - len(ours)
    notes = [f"projection head set aside ({head} tensors)"] if head else []
    return step, notes


FAMILY = Family("runs/NAME", (*preprocess.OPTIONS, "pool", "weights", *deployed.OPTIONS), load)
