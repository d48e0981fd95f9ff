"""`torchvision/NAME`: published weights of torchvision's CNNs, from its download page or torch's cache."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision

from selfsight.encoders import architecture, checkpoint, hub, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError, nearest
from selfsight.models.torchvision_cnns import PREFIX, names


def load(spec: Spec) -> Encoder:
    """Options `weights` (such as IMAGENET1K_V1), `size`, `pool` and those of the preprocessing; the first load downloads."""
    published = _published(spec)
    prepare = architecture.preprocess_of(spec, _preprocess(published))
    backbone = architecture.build(spec, architecture.settings_of(spec, PREFIX + spec.path, prepare.size))
    tensors, _ = checkpoint.read_tensors(_file(published.url, spec), spec.text)
    fitted = state.fit(tensors, backbone.net.state_dict(), spec.text, spec.path)
    backbone.net.load_state_dict(fitted.tensors)
    weights = f"published weights {published.name} of torchvision/{spec.path}"
    return TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), weights)


def _published(spec: Spec) -> Any:
    """The entry in torchvision's list of weights."""
    if spec.path not in names():
        raise WeightsError(f"{spec.text}: torchvision has no CNN '{spec.path}'. {nearest(spec.path, names())}")
    weights = torchvision.models.get_model_weights(spec.path)
    tag = spec.options.get("weights", "DEFAULT")
    if tag not in weights.__members__:
        raise WeightsError(f"{spec.text}: '{spec.path}' has no weights '{tag}'. {nearest(tag, list(weights.__members__))}")
    return weights[tag]


def _preprocess(published: Any) -> Preprocess:
    told = published.transforms()
    size, short = told.crop_size[0], told.resize_size[0]
    return Preprocess(
        size=size,
        mean=tuple(told.mean),
        std=tuple(told.std),
        crop_pct=min(1.0, size / short),
        interpolation=told.interpolation.value,
    )


def _file(url: str, spec: Spec) -> Path:
    """The weights in torch's cache (TORCH_HOME), fetched where they are not; torch compares the hash in their name."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    unreachable = (
        f"{spec.text}: its weights are not in the cache of this machine ({path}) and cannot be fetched; "
        f"without a network use efficientnet-lite0, a run folder or file/PATH?arch={PREFIX}{spec.path}"
    )
    if not hub.reachable(url):
        raise WeightsError(unreachable)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1], progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsError(f"{unreachable} ({str(error).splitlines()[0]})") from None
    return path


FAMILY = Family("torchvision/NAME", (*preprocess.OPTIONS, "pool", "weights"), load)
