"""What every target of an export is given and gives, and how the two networks are held against each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsight.encoders import parse_spec
from selfsight.encoders.base import TorchEncoder
from selfsight.encoders.export.licences import origins
from selfsight.errors import SelfsightError, WeightsError

Outputs: TypeAlias = dict[str, Tensor]
Reader: TypeAlias = Callable[[Tensor], Outputs]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LARGEST = 1e-4
"""A difference above this is an error. It is taken relative to the largest number of an output that has larger ones than 1:
float32 sums in another order differ by so many parts of what is summed."""


_FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/?]+/)+")
"""The folders of an absolute path."""


class Target(NamedTuple):
    """A form in which an encoder can leave.

    `write(encoder, place)` writes into a folder, or the file `place`, and returns notes; `WeightsError` for a network that the
    form cannot hold. `read(place, encoder)` loads it with the target's `library` and gives its outputs under our names, each of
    them [B, ...]; `sizes(place, encoder)` lists the pictures (height, width) that it takes. `usage(place, encoder)` is Python
    that loads it.
    """

    library: str
    folder: bool
    write: Callable[[TorchEncoder, Path], list[str]]
    read: Callable[[Path, TorchEncoder], Reader]
    sizes: Callable[[Path, TorchEncoder], list[tuple[int, int]]]
    usage: Callable[[Path, TorchEncoder], str]


def own_outputs(encoder: TorchEncoder, images: Tensor) -> Outputs:
    """What the encoder itself says of images: `features` under its pool, `pooled` and its tokens where it has them."""
    features, tokens = encoder.encode(images), encoder.tokens(images)
    named = {"pooled": tokens.pooled, "cls": tokens.cls, "registers": tokens.registers, "patches": tokens.patches}
    return {"features": features} | {name: tensor for name, tensor in named.items() if tensor is not None}


def difference(encoder: TorchEncoder, read: Reader, sizes: list[tuple[int, int]]) -> float:
    """The largest difference between the encoder and what was written, over pictures and noise in batches of 1 and 3."""
    largest = 0.0
    for images in _batches(encoder, sizes):
        ours, theirs = own_outputs(encoder, images), read(images)
        for name, tensor in theirs.items():
            if tensor.shape != ours[name].shape:
                shapes = f"{tuple(tensor.shape)} where the encoder's are {tuple(ours[name].shape)}"
                raise SelfsightError(f"{encoder.spec}: what was written gives {name} of shape {shapes}; nothing is left of it")
            scale = max(1.0, float(ours[name].abs().max()))
            largest = max(largest, float((tensor - ours[name]).abs().nan_to_num(torch.inf).max()) / scale)
    return largest


def _batches(encoder: TorchEncoder, sizes: list[tuple[int, int]]) -> Iterator[Tensor]:
    channels = encoder.backbone.settings.channels
    pictures = [encoder.prepare(picture) for picture in _drawn(channels)]
    if len({picture.shape for picture in pictures}) == 1:
        yield torch.stack(pictures)
    yield from (picture[None] for picture in pictures)
    for place, (height, width) in enumerate(sizes):
        yield torch.randn(1 + 2 * (place % 2), channels, height, width, generator=torch.Generator().manual_seed(place))


def _drawn(channels: int) -> list[Image.Image | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Three pictures of coloured waves, wide, tall and small."""
    pictures: list[Image.Image | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    for number, (width, height) in enumerate([(320, 240), (200, 300), (90, 90)], 1):
        y, x, channel = np.mgrid[:height, :width, :channels]
        waves = np.sin(x * number / 17 + channel) + np.sin(y * number / 11 + 2 * channel) + np.sin((x + y) / 5)
        levels = ((waves + 3) / 6 * 255).astype(np.uint8)
        pictures.append(Image.fromarray(levels) if channels == 3 else levels)
    return pictures


def baked(encoder: TorchEncoder) -> dict[str, Tensor]:
    """The network's state dict, with positions as they are used for pictures of the encoder's size."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.backbone.net.state_dict().items()}
    interpolated = getattr(encoder.backbone, "position_embedding", None)
    if interpolated is not None and "pos_embed" in tensors:
        height, width = (side // encoder.backbone.patch_size for side in encoder.prepare.shape)
        tensors["pos_embed"] = interpolated((height, width)).detach().cpu().contiguous()
    return tensors


def refuse_what_folders_lack(encoder: TorchEncoder, library: str) -> None:
    """Folders hold a network without a head, and how it is to be given square pictures."""
    if encoder.deployed:
        raise WeightsError(
            f"{encoder.spec}: {library} gets the network without its head; leave 'pool' out, or export it --to onnx"
        )
    refuse_other_shapes(encoder, library)


def refuse_other_shapes(encoder: TorchEncoder, library: str) -> None:
    """What is saved for pictures of one square size is not what an encoder of other pictures sees."""
    held = ("square", "squash") if library == "timm" else ("square",)
    if encoder.prepare.width is not None or encoder.prepare.aspect not in held:
        raise WeightsError(
            f"{encoder.spec}: {library} keeps the preprocessing of square pictures alone, and this encoder takes "
            f"{encoder.prepare.text}; take a square size, such as size={encoder.input_size}, or export it --to onnx"
        )


def weights_of(encoder: TorchEncoder) -> str:
    """Where the weights come from, without folders of this machine."""
    return _FOLDERS.sub("", encoder.weights)


def provenance(encoder: TorchEncoder) -> Mapping[str, object]:
    """What a reader of the file is told of the encoder, as JSON holds it."""
    settings = encoder.backbone.settings.model_copy(update={"image_size": encoder.input_size})
    return {
        "weights": weights_of(encoder),
        "backbone": settings.model_dump(mode="json", exclude={"drop_path", "rope_rescale", "checkpointing"}),
        "pool": encoder.pool,
        "classes": list(encoder.classes),
        "fingerprint": encoder.fingerprint,
        "licences": sorted({origin.licence for origin in origins(parse_spec(encoder.spec))}),
    }
