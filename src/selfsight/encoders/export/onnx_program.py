"""`--to onnx`: one file that ONNX Runtime runs, for batches and, where the network allows, pictures of any size."""

from __future__ import annotations

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from timm.layers import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn

from selfsight.encoders.base import Pooled, TorchEncoder
from selfsight.encoders.export.base import Outputs, Reader, Target, provenance, refuse_other_shapes
from selfsight.encoders.export.positions import interpolate
from selfsight.encoders.onnx_file import METADATA
from selfsight.encoders.pools import of_tokens
from selfsight.errors import SelfsightError, WeightsError
from selfsight.models.backbones import CNN, Backbone, RotaryViT, ViT
from selfsight.runs import readable

INPUT = "image"
_STEP = 32
"""By how much a picture of another size differs for a CNN: the stride of its last stage."""
_MOST = 4096
"""Rows of patches, for torch's bookkeeping alone."""
_LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights; a file of protobuf ends at 2 GiB."""


class Graph(nn.Module):
    """Images [B, C, H, W] -> features [B, D], and CLS [B, W] and patches [B, N, W] where the pool is made of tokens."""

    def __init__(self, network: Pooled, pool: str, *, with_tokens: bool) -> None:
        super().__init__()
        self.network, self.pool, self.with_tokens = network, pool, with_tokens

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if not self.with_tokens:
            return (self.network(image),)
        tokens = self.network.backbone(image)
        features = of_tokens(tokens, self.pool)
        assert features is not None
        named = [tokens.patches] if tokens.cls is None else [tokens.cls, tokens.patches]
        # An output that is another one under a second name would be lost.
        return (features.flatten(1).clone(), *named)


class _SamePadding(nn.Module):
    """A convolution with TensorFlow's padding as the graph's own operator; padding computed from an unknown size outside of it
    makes expressions that grow with every layer."""

    def __init__(self, layer: Conv2dSame) -> None:
        super().__init__()
        self.weight, self.bias, self.width = layer.weight, layer.bias, layer.out_channels
        self.strides = list(layer.stride)
        self.attributes: dict[str, Any] = {
            "auto_pad": "SAME_UPPER",
            "dilations": list(layer.dilation),
            "group": layer.groups,
            "kernel_shape": list(layer.kernel_size),
            "strides": self.strides,
        }

    def forward(self, x: Tensor) -> Tensor:
        shape = [x.shape[0], self.width, *((n + s - 1) // s for n, s in zip(x.shape[2:], self.strides, strict=True))]
        inputs = [x, self.weight] if self.bias is None else [x, self.weight, self.bias]
        return torch.onnx.ops.symbolic("Conv", inputs, self.attributes, dtype=x.dtype, shape=shape)


def write(encoder: TorchEncoder, place: Path) -> list[str]:
    if (size := 4 * encoder.parameters) > _LARGEST_FILE:
        raise WeightsError(
            f"{encoder.spec}: an ONNX file holds up to 2 GiB and these weights are {readable(size)}; export it --to timm"
        )
    names = _names(encoder)
    taken = "batches and pictures of any size"
    program = _program(encoder, names, open_size=True) if _may_be_open(encoder.backbone) else None
    if program is None:
        refuse_other_shapes(encoder, "an ONNX file of a fixed size")
        program = _program(encoder, names, open_size=False)
        taken = f"batches of any size, pictures of {encoder.prepare.text} alone"
    if program is None:
        raise WeightsError(f"{encoder.spec}: torch {torch.__version__} cannot export this network to ONNX")
    for part in [*program.model.graph, *program.model.graph.initializers.values()]:
        part.metadata_props.clear()  # paths and lines of the programs of this machine
    program.model.metadata_props[METADATA] = json.dumps({**provenance(encoder), "preprocessing": asdict(encoder.prepare)})
    program.save(place, external_data=False)
    return [f"the graph takes {taken}; its outputs are {', '.join(names)}"]


def _names(encoder: TorchEncoder) -> list[str]:
    tokens = encoder.tokens(torch.zeros(1, encoder.backbone.settings.channels, *encoder.prepare.shape))
    if of_tokens(tokens, encoder.pool) is None:
        return ["features"]
    return ["features", "patches"] if tokens.cls is None else ["features", "cls", "patches"]


def _may_be_open(backbone: Backbone) -> bool:
    """Whether the network's own forward pass takes any size of picture."""
    if isinstance(backbone, CNN):
        return not any(isinstance(module, AvgPool2dSame | MaxPool2dSame) for module in backbone.modules())
    return isinstance(backbone, ViT) or (isinstance(backbone, RotaryViT) and bool(backbone.net.dynamic_img_size))


def _program(encoder: TorchEncoder, names: list[str], *, open_size: bool) -> Any:
    """torch's ONNX program of the network; None where torch cannot follow it with so much left open."""
    network = copy.deepcopy(encoder.network).cpu().to(memory_format=torch.contiguous_format)
    backbone = network.backbone
    if open_size:
        _open(backbone)
    graph = Graph(network, encoder.pool, with_tokens=len(names) > 1).eval()
    height, width = encoder.prepare.shape
    step = _step(backbone)
    # Sizes that differ: equal ones would be taken for the same unknown number.
    example = torch.randn(2, backbone.settings.channels, height + step * open_size, width + 2 * step * open_size)
    dims = {0: "batch", **(_open_sides(backbone) if open_size else {})}
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                graph, (example,), dynamo=True, input_names=[INPUT], output_names=names, dynamic_shapes=(dims,), verbose=False
            )
    except (RuntimeError, ValueError):  # the exporter's own errors are of the first kind
        return None


def _open_sides(backbone: Backbone) -> dict[int, Any]:
    """Height and width as torch calls them; those of a transformer are whole patches, without which a convolutional stem is not
    known to fit the positions."""
    if isinstance(backbone, CNN):
        return {2: "height", 3: "width"}
    return {
        place: backbone.patch_size * torch.export.Dim(name, min=1, max=_MOST) for place, name in ((2, "rows"), (3, "columns"))
    }


def _step(backbone: Backbone) -> int:
    return _STEP if isinstance(backbone, CNN) else backbone.patch_size


def _open(backbone: Backbone) -> None:
    """Exchange what torch cannot follow for unknown sizes."""
    if isinstance(backbone, ViT) and backbone.net.pos_embed is not None:
        table, antialias = backbone.net.pos_embed, backbone.net.reg_token is not None
        prefix = table.shape[1] - backbone.net.patch_embed.num_patches

        def positions(grid: tuple[int, int]) -> Tensor:
            return interpolate(table, prefix, grid, antialias=antialias)

        backbone.position_embedding = positions  # type: ignore[method-assign]
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(module, name, _SamePadding(child))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns of itself and logs what it does."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _session(place: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])


def read(place: Path, encoder: TorchEncoder) -> Reader:
    """The file in ONNX Runtime on the CPU."""
    session = _session(place)
    names = [output.name for output in session.get_outputs()]

    def outputs(images: Tensor) -> Outputs:
        try:
            found = session.run(names, {INPUT: images.numpy()})
        except Exception as error:  # ONNX Runtime has no common base of its own errors
            shape, reason = tuple(images.shape), str(error).splitlines()[0]
            raise SelfsightError(f"{encoder.spec}: ONNX Runtime does not run the exported file on {shape} ({reason})") from None
        return {name: torch.from_numpy(np.asarray(each)) for name, each in zip(names, found, strict=True)}

    return outputs


def sizes(place: Path, encoder: TorchEncoder) -> list[tuple[int, int]]:
    """The encoder's own, and where the graph is open a taller and a wider one."""
    height, width = encoder.prepare.shape
    fixed = all(isinstance(length, int) for length in _session(place).get_inputs()[0].shape[2:])
    step = _step(encoder.backbone)
    return [(height, width)] if fixed else [(height, width), (height + 2 * step, width), (height, width + step)]


def usage(place: Path, encoder: TorchEncoder) -> str:
    prepare = encoder.prepare
    height, width = prepare.shape
    short = math.floor(prepare.size / prepare.crop_pct)
    return f"""import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{place}")
picture = Image.open("picture.jpg").convert("RGB")
shape = [int({short} * side / min(picture.size)) for side in picture.size]
picture = picture.resize(shape, Image.Resampling.{prepare.interpolation.upper()})
left, top = round((shape[0] - {width}) / 2), round((shape[1] - {height}) / 2)
picture = picture.crop((left, top, left + {width}, top + {height}))
pixels = (np.asarray(picture, np.float32) / 255 - {list(prepare.mean)}) / {list(prepare.std)}
features = session.run(["features"], {{"{INPUT}": pixels.transpose(2, 0, 1)[None].astype(np.float32)}})[0]"""


TARGET = Target("onnx", False, write, read, sizes, usage)
