"""Encoders that each see one thing alone, or two, and a drawn set on which it is known where each of them breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from selfsight.synthesis.spec import SynthSpec

SIZE = 16


def spec(**changes: object) -> SynthSpec:
    """Each class has a shape and a hue of its own, so that either tells it; a quarter of the things are grey."""
    values: dict[str, object] = {
        "name": "shapes that have a colour",
        "size": 40,
        "classes": {
            "cross": {"assets": "shape/cross", "factors": {"hue": {"uniform": [-5, 5]}}},
            "disc": {"assets": "shape/disc", "factors": {"hue": {"uniform": [115, 125]}}},
            "ring": {"assets": "shape/ring", "factors": {"hue": {"uniform": [235, 245]}}},
        },
        "factors": {
            "size": {"uniform": [0.6, 0.7]},
            "saturation": {"choice": [0.0, 1.0], "weights": [1, 3]},
            "x": 0.5,
            "y": 0.5,
            "rotation": 0,
            "light_azimuth": 0,
            "background": "plain",
            "background_saturation": 0,
            "noise": 0.01,
        },
        "splits": {"train": 1.0, "test": 0.5},
        "shift": {"hue": "others", "size": {"small": {"uniform": [0.2, 0.3]}}},
    }
    return SynthSpec.model_validate(values | changes)


def encoders(folder: Path) -> tuple[str, str, str]:
    """(colour, form, both): the hue of a picture whatever its shape, its shape whatever its hue, and hue before shape."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = numpy_helper.from_array(np.array([1], dtype=np.int64), "channels")
    lightness = helper.make_node("ReduceMean", ["x", "channels"], ["grey"], keepdims=1)
    colour = [
        lightness,
        helper.make_node("Sub", ["x", "grey"], ["chroma"]),
        helper.make_node("GlobalAveragePool", ["chroma"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["hue"], axis=1, p=2),
    ]
    shape = helper.make_node("Flatten", ["grey"], ["shape"])
    ends = {name: helper.make_node("Concat", parts, ["features"], axis=1) for name, parts in _PARTS.items()}
    return (
        _saved(folder, "colour", [*colour, ends["colour"]], 3, grey),
        _saved(folder, "form", [lightness, shape, ends["form"]], SIZE * SIZE, grey),
        _saved(folder, "both", [*colour, shape, ends["both"]], 3 * _TIMES + SIZE * SIZE, grey),
    )


_TIMES = 64
"""How often `both` has the hue: a probe leans on what many features say."""
_PARTS = {"colour": ["hue"], "form": ["shape"], "both": [*["hue"] * _TIMES, "shape"]}


def _saved(folder: Path, name: str, nodes: list[onnx.NodeProto], width: int, constant: onnx.TensorProto) -> str:
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, name, [picture], [features], [constant])
    path = folder / f"{name}.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return f"onnx/{path}?mean=0,0,0&std=1,1,1&crop=1"
