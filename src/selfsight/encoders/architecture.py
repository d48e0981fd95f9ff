"""What timm knows of an architecture before any weights are there: its input size, normalisation and classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm

from selfsight import config
from selfsight.encoders import preprocess
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import Backbone, BackboneSettings, build_backbone
from selfsight.models.torchvision_cnns import PREFIX

OPTIONS = (*preprocess.OPTIONS, "patch", "pool")


def published_config(name: str) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a name, empty where timm publishes none."""
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that does not exist
        return {}
    return {} if published is None or published.input_size is None else dict(published.to_dict())


def default_preprocess(name: str) -> Preprocess:
    """The preprocessing that the architecture is usually trained with; ImageNet's at 224 pixels where nothing is known."""
    if name.startswith(PREFIX):
        return Preprocess(interpolation="bilinear")
    published = published_config(name) or published_config(name.split(".")[0])
    return preprocess.from_timm(published) if published else Preprocess()


def preprocess_of(spec: Spec, default: Preprocess) -> Preprocess:
    """`default` with the options of the spec; a size of its own brings the usual crop for that size."""
    prepare = preprocess.with_options(default, spec)
    if "crop" not in spec.options and prepare.size != default.size:
        return replace(prepare, crop_pct=preprocess.plain_crop(prepare.size))
    return prepare


def settings_of(spec: Spec, name: str, size: int) -> BackboneSettings:
    patch = spec.number("patch", 0) or None
    return config.build(BackboneSettings, {"name": name, "image_size": size, "patch_size": patch}, spec.text)


def build(spec: Spec, settings: BackboneSettings) -> Backbone:
    """The untrained network; a `WeightsError` that begins with the spec where there is no such network."""
    try:
        return build_backbone(settings)
    except ConfigError as error:
        raise WeightsError(f"{spec.text}: {error}") from None
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{spec.text}: '{settings.name}' cannot be built at {settings.image_size} pixels ({reason})") from None


def classifier_of(net: Any) -> tuple[str, ...]:
    """timm's names of the layers that end in class scores, as in `fc` or `head.fc`."""
    name = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (name,) if isinstance(name, str) else tuple(name)
