"""Small networks on disk, for the tests of encoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModel

from selfsight.models.backbones import BackboneSettings, build_backbone

VIT = "vit_w32_d1_p8"
CNN = "test_efficientnet"


def pictures(count: int, size: tuple[int, int] = (48, 40)) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def folder_of_pictures(path: Path, count: int = 5) -> Path:
    path.mkdir()
    for number, picture in enumerate(pictures(count)):
        picture.save(path / f"{number}.png")
    return path


def network(name: str, size: int = 32, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_backbone(BackboneSettings(name=name, image_size=size)).net


def run_folder(path: Path, *, teacher: bool = True, seed: int = 3) -> Path:
    """What a training leaves, as far as encoders read it."""
    path.mkdir(parents=True)
    settings = {"name": VIT, "image_size": 32, "patch_size": None, "drop_path": 0.1}
    values = {
        "recipe": "dino",
        "seed": seed,
        "backbone": settings,
        "views": {"global_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    if teacher:
        tensors = {f"backbone.{key}": value for key, value in network(VIT, seed=seed + 1).state_dict().items()}
        tensors["head.layers.0.weight"] = torch.zeros(2, 2)
        save_file(tensors, path / "teacher.safetensors", {"step": "1200"})
    return path


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def transformers_folder(path: Path, model_type: str, seed: int = 0, **sizes: object) -> Path:
    """What the library itself saves of a small network with random weights, none of them at the value it starts from."""
    config = AutoConfig.for_model(model_type, **SIZES, intermediate_size=128, **sizes)
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path)
    return path


def hub_repository(cache: Path, name: str, files: Path, commit: str = "a" * 40, revision: str = "main") -> Path:
    """A folder's files in the cache of the hub client, as `revision` of repository `name`."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    shutil.copytree(files, snapshot)
    # What the hub said is not there is remembered as an empty file.
    for name in ("preprocessor_config.json", "pytorch_model.bin", "model.safetensors.index.json"):
        if not (files / name).exists():
            (root / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
            (root / ".no_exist" / commit / name).touch()
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    return snapshot


def onnx_file(path: Path, *, batch: int | str = "batch", rank: int = 2, seed: int = 0) -> Path:
    """A convolution of stride 8 on 32 pixels; as a map [B, 6, 4, 4], tokens [B, 4, 24] or, by default, 7 numbers."""
    draw = np.random.default_rng(seed)
    kernel = numpy_helper.from_array(draw.normal(size=(6, 3, 8, 8)).astype(np.float32), "kernel")
    dense = numpy_helper.from_array(draw.normal(size=(6, 7)).astype(np.float32), "dense")
    shape = numpy_helper.from_array(np.array([0, 4, 24], dtype=np.int64), "shape")
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[8, 8])]
    if rank == 2:
        nodes.append(helper.make_node("GlobalAveragePool", ["map"], ["pooled"]))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
        nodes.append(helper.make_node("MatMul", ["features", "dense"], ["logits"]))
        outputs = {"logits": [batch, 7], "features": [batch, 6]}
    elif rank == 3:
        nodes.append(helper.make_node("Reshape", ["map", "shape"], ["tokens"]))
        outputs = {"tokens": [batch, 4, 24]}
    else:
        outputs = {"map": [batch, 6, 4, 4]}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [kernel, dense] if rank == 2 else [kernel, shape] if rank == 3 else [kernel],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
