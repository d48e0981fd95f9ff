"""The network through ONNX Runtime on the CPU.

It fuses convolutions with what follows them and blocks their channels for the vector units. A batch is cut into slices, each
computed by one thread from end to end: threads that share an operation wait for one another in each, and on cores that also
decode images they wait long.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from selfsight.encoders.base import Encoder
from selfsight.encoders.runtimes.base import Runtime
from selfsight.errors import SelfsightError
from selfsight.runs import write_atomic

_SLICE = 4
"""Images a thread takes at a time: few enough that what it holds of them stays in its core's cache."""
_INPUT, _OUTPUT = "images", "features"


class NotExportedError(SelfsightError):
    """The network cannot be written as a graph of ONNX; the text says why."""


class OnnxRuntime(Runtime):
    """Takes images of the one `shape` [C, H, W] that the graph is made for; others go through torch."""

    name = "onnx"
    device = torch.device("cpu")

    def __init__(self, encoder: Encoder, graph: Path, shape: torch.Size) -> None:
        self.encoder, self.shape = encoder, shape
        self.threads = torch.get_num_threads()
        self._session = _session(graph)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="selfsight-onnx")

    def encode(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.shape:
            return self.encoder.encode(images)
        size = max(1, min(_SLICE, -(-len(images) // self.threads)))
        return torch.cat(list(self._pool.map(self._run, torch.split(images, size))))

    def _run(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._session.run([_OUTPUT], {_INPUT: images.numpy()})[0])


def export(network: nn.Module, shape: torch.Size, path: Path) -> None:
    """Write the network [B, *shape] -> [B, D] as a graph with an open batch. `NotExportedError` where torch cannot."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of what torch deprecates in itself
        try:
            program: Any = torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # whatever of the network torch cannot trace raises its own error
            raise NotExportedError(f"torch cannot export it ({_first_line(error)})") from None
    write_atomic(path, lambda temporary: _save(program, temporary))


def _save(program: Any, path: Path) -> None:
    try:
        program.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf has its own error for what is larger than 2 GiB
        raise NotExportedError(f"its graph cannot be written ({_first_line(error)})") from None


def _session(graph: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base of its own errors
        raise NotExportedError(f"ONNX Runtime cannot read its graph ({_first_line(error)})") from None
    if isinstance(session.get_inputs()[0].shape[0], int):
        raise NotExportedError("its graph takes batches of one size only")
    return session


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:150] if lines else type(error).__name__
