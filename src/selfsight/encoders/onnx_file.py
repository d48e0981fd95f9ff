"""`onnx/PATH`: the user's own network, or one that `selfsight export` wrote, through ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from selfsight.encoders import architecture, deployed, onnx_graph, preprocess
from selfsight.encoders.base import Encoder, digest
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.encoders.weights_file import assumed
from selfsight.errors import WeightsError

_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
_POOLS = {2: ("none", deployed.POOL), 3: ("cls", "mean", "cls+mean"), 4: ("gap",)}
METADATA = "selfsight"
"""Under this name an exported file says of itself what network it is and how its pictures are prepared."""

_CLASSIFIERS = ("Gemm", "MatMul", "Add", "Softmax", "LogSoftmax", "Sigmoid")


class Input(NamedTuple):
    """The graph's picture: its name, element type, fixed batch and fixed side, None where the graph leaves them open."""

    name: str
    dtype: type[np.floating[Any]]
    batch: int | None
    side: int | None


class OnnxEncoder(Encoder):
    """Outputs [B, D] are features as they are, maps [B, C, H, W] are averaged, tokens [B, N, C] begin with CLS.

    `told` is what an exported file says of itself; its tokens are patches alone, and its features end in no classifier.
    """

    kind = "other"

    def __init__(
        self,
        spec: Spec,
        path: Path,
        prepare: Preprocess,
        session: Any,
        picture: Input,
        output: str,
        told: Mapping[str, Any],
    ) -> None:
        self.spec = spec.text
        self.weights = f"ONNX file {path.name}" + (f": {told['weights']}" if told else "")
        self.prepare = prepare
        self.input_size = prepare.size
        self.notes = []
        self._session, self._picture, self._output = session, picture, output
        self.read = self.read.model_copy(update={"channels": len(prepare.mean)})
        self._first = 0 if told else 1
        probe = self._run(torch.zeros(1, len(prepare.mean), *prepare.shape))
        if probe.ndim not in _POOLS:
            raise WeightsError(
                f"{spec.text}: output '{output}' has shape {tuple(probe.shape)}; expected [B, D], [B, N, C] or [B, C, H, W]"
            )
        self.pools = ("mean",) if told and probe.ndim == 3 else _POOLS[probe.ndim]
        self.pool = spec.choice("pool", self.pools)
        self.feature_width = self._pooled(probe).shape[1]
        hashes, self.parameters, self._producers = _read(path, spec.text)
        if deployed.asked_for(spec):
            self.classes = deployed.class_names(spec, self.feature_width) or tuple(told.get("classes", ()))
        self._fingerprint = digest(["onnx", hashes, repr(prepare), output, self.pool, *self.classes], [])
        if probe.ndim == 2 and not (told or self.deployed):
            self._note_output("output" in spec.options)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode(self, images: Tensor) -> Tensor:
        return self._pooled(self._run(images.cpu())).float().to(images.device)

    def _pooled(self, out: Tensor) -> Tensor:
        if out.ndim == 4:
            return out.mean((2, 3))
        if out.ndim == 2:
            return out
        mean = out[:, self._first :].mean(1)
        parts = {"cls": [out[:, 0]], "mean": [mean], "cls+mean": [out[:, 0], mean]}
        return torch.cat(parts[self.pool], dim=1)

    def _run(self, images: Tensor) -> Tensor:
        """The chosen output; a graph with a fixed batch gets its pictures in portions, the last one filled up."""
        portion = self._picture.batch or len(images)
        outputs = []
        for part in torch.split(images, portion):
            filled = torch.cat([part, part.new_zeros(portion - len(part), *part.shape[1:])])
            outputs.append(self._call(filled)[: len(part)])
        return torch.cat(outputs)

    def _call(self, images: Tensor) -> Tensor:
        try:
            out = self._session.run([self._output], {self._picture.name: images.numpy().astype(self._picture.dtype)})[0]
        except Exception as error:  # ONNX Runtime has no common base of its own errors
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{self.spec}: ONNX Runtime cannot run pictures of {self.input_size} pixels ({reason})") from None
        return torch.from_numpy(np.asarray(out, dtype=np.float32))

    def _note_output(self, chosen: bool) -> None:
        last = self._producers.get(self._output, "")
        if last in _CLASSIFIERS and not chosen:
            others = ", ".join(o.name for o in self._session.get_outputs() if o.name != self._output) or "none in this file"
            self.notes.append(
                f"the graph ends in {last}, perhaps a classifier: the features are its output '{self._output}' of width "
                f"{self.feature_width}; name another with ?output= (others: {others})"
            )


def load(spec: Spec) -> Encoder:
    """Options `output`, `pool` and those of the preprocessing, which an exported file brings with it; the size is the graph's own
    where it fixes one."""
    path = spec.file("an .onnx file")
    session = _session(path, spec.text)
    told = _told(session, spec)
    picture = _picture(session, spec, len(told["preprocessing"]["mean"]) if told else 3)
    if picture.side and spec.number("size", picture.side, least=8) != picture.side:
        raise WeightsError(f"{spec.text}: the graph is made for {picture.side} pixels; leave out 'size'")
    prepare = architecture.preprocess_of(spec, _usual(told, picture, spec))
    encoder = OnnxEncoder(spec, path, prepare, session, picture, _output(session, spec), told)
    encoder.notes += [] if told else assumed(spec)
    return encoder


def _told(session: Any, spec: Spec) -> dict[str, Any]:
    """What an exported file says of itself; empty for files of others."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        return {}
    try:
        told = json.loads(text)
        told["preprocessing"] |= {key: tuple(told["preprocessing"][key]) for key in ("mean", "std")}
        Preprocess(**told["preprocessing"])
        str(told["weights"])
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{spec.text}: its metadata '{METADATA}' are not those of an export ({error!r})") from None
    return dict(told)


def _usual(told: Mapping[str, Any], picture: Input, spec: Spec) -> Preprocess:
    if told:
        return Preprocess(**told["preprocessing"])
    size = picture.side or spec.number("size", 224, least=8)
    return Preprocess(size=size, crop_pct=preprocess.plain_crop(size), interpolation="bilinear")


def _session(path: Path, where: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base of its own errors
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{where}: '{path}' is no network that ONNX Runtime {onnxruntime.__version__} can run ({reason})"
        ) from None


def _picture(session: Any, spec: Spec, channels: int) -> Input:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise WeightsError(f"{spec.text}: the graph has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); expected one")
    name, shape, kind = inputs[0].name, inputs[0].shape, inputs[0].type
    batch, found, height, width = [d if isinstance(d, int) and d > 0 else None for d in [*shape, 0, 0, 0, 0][:4]]
    if len(shape) != 4 or found not in (channels, None) or kind not in _TYPES or (height and width and height != width):
        expected = f"a float tensor [batch, {channels}, side, side]"
        raise WeightsError(f"{spec.text}: input '{name}' is {kind} of shape {shape}; expected {expected}")
    return Input(name, _TYPES[kind], batch, height or width)


def _output(session: Any, spec: Spec) -> str:
    names = [output.name for output in session.get_outputs()]
    return spec.choice("output", tuple(names))


def _read(path: Path, where: str) -> tuple[str, int, dict[str, str]]:
    """Hash, parameter count and producers; weights that lie in a file beside the graph count as part of it."""
    data = path.read_bytes()
    total = hashlib.blake2b(data, digest_size=20)
    try:
        parameters, producers, beside = onnx_graph.facts(data)
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{where}: '{path}' is no whole ONNX file ({error})") from None
    for name in sorted(beside):
        total.update((path.parent / name).read_bytes())
    return total.hexdigest(), parameters, producers


FAMILY = Family("onnx/PATH", (*preprocess.OPTIONS, "pool", "output", *deployed.OPTIONS), load)
