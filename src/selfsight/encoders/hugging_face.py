"""`hf/ORG/NAME`: ViTs in the layout of Hugging Face's transformers, from the hub, its cache, or a folder of the same files.

Repositories in the layout of timm are taken too, whatever their network is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from selfsight.encoders import architecture, checkpoint, hub, preprocess, timm_local
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError
from selfsight.models import transformers_layouts, transformers_names

_WEIGHTS, _PICKLED, _PARTS = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"
_PREPARED = "preprocessor_config.json"
_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which a preprocessor_config.json uses."""

Files = Callable[[str], Path | None]
"""A file of the repository or folder by its name, None where it has none."""


def load(spec: Spec) -> Encoder:
    """Options `revision` (a branch, tag or commit), `size`, `pool` and those of the preprocessing."""
    files = _folder(spec) if Path(spec.path).is_dir() else _repository(spec)
    config_file = files("config.json")
    if config_file is None:
        raise WeightsError(f"{spec.text}: there is no config.json; expected a repository or folder that transformers loads")
    config = _read(config_file, spec.text)
    if "model_type" not in config and "architecture" in config:
        next(filter(None, map(files, (_WEIGHTS, _PICKLED))), None)  # into the cache, beside the config.json
        return timm_local.from_folder(spec, config_file.parent, f"{spec.path}{_commit(config_file)}")
    found = transformers_layouts.described(config, spec.text)
    prepare = architecture.preprocess_of(spec, _preprocess(files, found.settings.image_size, spec))
    backbone = transformers_layouts.build(found, spec.text)
    tensors, where_from = _tensors(files, spec.text)
    translated = transformers_names.to_timm(found.model_type, tensors, backbone.net, spec.text)
    backbone.net.load_state_dict(translated.tensors)
    weights = f"{spec.path}{_commit(config_file)}, {where_from}"
    encoder = TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), weights)
    if translated.aside:
        encoder.notes.append(f"head set aside: {', '.join(translated.aside)}")
    return encoder


def _folder(spec: Spec) -> Files:
    if "revision" in spec.options:
        raise WeightsError(f"{spec.text}: '{spec.path}' is a folder, which has no revisions; leave 'revision' out")

    def files(name: str) -> Path | None:
        path = Path(spec.path) / name
        return path if path.is_file() else None

    return files


def _repository(spec: Spec) -> Files:
    return lambda name: hub.fetched(spec.path, name, spec.options.get("revision"), spec.text)


def _commit(path: Path) -> str:
    """The commit that a file of the hub's cache belongs to."""
    return f" at {path.parent.name[:12]}" if path.parent.parent.name == "snapshots" else ""


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{where}: '{path}' is no JSON that can be read ({error})") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{where}: '{path}' holds no settings by name")
    return values


def _tensors(files: Files, where: str) -> tuple[dict[str, Tensor], str]:
    """All tensors, and the name of the file or files that they are in."""
    if (path := files(_WEIGHTS)) is not None:
        return checkpoint.read_safetensors(path, where)[0], _WEIGHTS
    if (index := files(_PARTS)) is not None:
        names = sorted(set(_read(index, where).get("weight_map", {}).values()))
        parts = [(name, files(name)) for name in names]
        missing = [name for name, path in parts if path is None]
        if missing:
            raise WeightsError(f"{where}: {', '.join(missing)} of its {len(names)} files of weights are not there")
        tensors = [checkpoint.read_safetensors(path, where)[0] for _, path in parts if path is not None]
        return {key: tensor for part in tensors for key, tensor in part.items()}, f"{len(names)} safetensors files"
    if (path := files(_PICKLED)) is not None:
        return checkpoint.read_tensors(path, where)[0], _PICKLED
    raise WeightsError(f"{where}: there are no weights; expected {_WEIGHTS}, {_PARTS} or {_PICKLED}")


def _preprocess(files: Files, image_size: int, spec: Spec) -> Preprocess:
    """What the preprocessor_config.json says; without one, ImageNet's mean and deviation at the network's own size."""
    path = files(_PREPARED)
    if path is None:
        _refuse_guesses(spec)
        return Preprocess(size=image_size, crop_pct=preprocess.plain_crop(image_size))
    values = _read(path, spec.text)
    try:
        return _as_told(values, image_size)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{spec.text}: '{path}' cannot be understood ({error})") from None


def _refuse_guesses(spec: Spec) -> None:
    """A file that was never fetched may say something else than what would be assumed here."""
    told = {"size", "mean", "std"} <= spec.options.keys()
    if not told and not Path(spec.path).is_dir() and not hub.known_missing(spec.path, _PREPARED, spec.options.get("revision")):
        raise WeightsError(
            f"{spec.text}: its {_PREPARED} has not been fetched, and the model hub cannot be reached; fetch it once, or say how "
            "pictures are prepared with ?size=...&mean=...&std=..."
        )


def _as_told(values: Mapping[str, Any], image_size: int) -> Preprocess:
    """Shorter side and central square, or the whole picture pressed into a height and width."""
    cropped = bool(values.get("do_center_crop"))
    sides = values.get("size")
    squashed = not cropped and isinstance(sides, Mapping) and "height" in sides
    short = _side(sides, image_size)
    size = _side(values.get("crop_size"), short) if cropped else short
    plain = values.get("do_normalize") is False
    return Preprocess(
        size=size,
        mean=(0.0, 0.0, 0.0) if plain else _triple(values.get("image_mean"), preprocess.IMAGENET_MEAN),
        std=(1.0, 1.0, 1.0) if plain else _triple(values.get("image_std"), preprocess.IMAGENET_STD),
        crop_pct=min(1.0, size / short),
        interpolation=_FILTERS.get(int(values.get("resample", 3)), "bicubic"),
        aspect="squash" if squashed else "square",
    )


def _side(value: Any, default: int) -> int:
    """The shorter side, as a number or by one of the names that transformers has for it."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge", value.get("height"))
    return default if value is None else int(value)


def _triple(values: Any, default: preprocess.Triple) -> preprocess.Triple:
    if values is None:
        return default
    red, green, blue = map(float, values)
    return red, green, blue


FAMILY = Family("hf/ORG/NAME", (*preprocess.OPTIONS, "pool", "revision"), load)
