"""`runs/NAME`: the teacher that a training leaves in its run folder, or the network it started from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfsight import config
from selfsight.data.views import ViewSettings
from selfsight.encoders import architecture, checkpoint, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Family, Spec
from selfsight.encoders.untrained import born
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import Backbone, BackboneSettings
from selfsight.runs import RunFolder

_PART = "backbone."


def load(spec: Spec) -> Encoder:
    """Options `weights` (teacher, or init: untrained), `size`, `pool` and those of the preprocessing."""
    run = RunFolder(spec.path)
    if not run.exists:
        raise WeightsError(f"{spec.text}: '{run.path}' is no run folder; expected one with config.yaml and teacher.safetensors")
    untrained = spec.choice("weights", ("teacher", "init")) == "init"
    settings, views, seed = _configured(spec, run)
    backbone = born(spec, settings, seed)
    notes: list[str] = []
    if untrained:
        weights = f"untrained: what run {run.path.resolve().name} started from (seed {seed})"
    else:
        weights, notes = _load_teacher(spec, run, backbone)
    size = views.global_size
    usual = Preprocess(size, views.mean, views.std, preprocess.plain_crop(size))
    prepare = architecture.preprocess_of(spec, usual)
    encoder = TorchEncoder(spec.text, backbone, prepare, prepare.size, spec.options.get("pool"), weights)
    encoder.read = views.read
    encoder.notes += notes
    return encoder


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


def _load_teacher(spec: Spec, run: RunFolder, backbone: Backbone) -> tuple[str, list[str]]:
    if not run.teacher.is_file():
        raise WeightsError(
            f"{spec.text}: '{run.path}' holds no {run.teacher.name} yet: the training has not written a checkpoint; "
            "finish or resume it, or take ?weights=init"
        )
    found, metadata = checkpoint.read_safetensors(run.teacher, spec.text)
    ours = {key: tensor for key, tensor in found.items() if key.startswith(_PART)}
    advice = f"{run.teacher.name} and {run.config.name} are not of the same training."
    fitted = state.fit(ours, backbone.net.state_dict(), spec.text, backbone.settings.name, advice=advice)
    backbone.net.load_state_dict(fitted.tensors)
    step = f", step {metadata['step']}" if "step" in metadata else ""
    head = len(found) - len(ours)
    notes = [f"projection head set aside ({head} tensors)"] if head else []
    return f"selfsight run {run.path.resolve().name}{step}", notes


FAMILY = Family("runs/NAME", (*preprocess.OPTIONS, "pool", "weights"), load)
