"""A network with the head that it is deployed with: the pool `logits`, which stands in a comparison as it is.

Class names come from `classes=cat,dog,...`, or `classes=PATH` of a text file with one name a line. Without names the scores are
taken to be in the order of the data's classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError

POOL = "logits"
OPTIONS = ("classes",)


class Head(NamedTuple):
    """A linear classifier: `weight` [K, D], `bias` [K] or None, and the names of the K classes, if they are known.

    `own`: it sits on what the network itself pools, where timm or torchvision made both; else on the summary of a training here.
    """

    weight: Tensor
    bias: Tensor | None
    classes: tuple[str, ...]
    own: bool = True

    def layer(self) -> nn.Linear:
        """The head as a module, float32."""
        linear = nn.Linear(self.weight.shape[1], len(self.weight), bias=self.bias is not None).requires_grad_(False)
        linear.load_state_dict({"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias}))
        return linear


def asked_for(spec: Spec) -> bool:
    """Whether the spec names the pool; `WeightsError` for class names without it."""
    if "classes" in spec.options and spec.options.get("pool") != POOL:
        raise WeightsError(f"{spec.text}: 'classes' names the scores of a deployed head; add pool={POOL}")
    return spec.options.get("pool") == POOL


def head_of(spec: Spec, found: Mapping[str, Tensor]) -> Head | None:
    """The head among the tensors that were set aside, if it is asked for; `WeightsError` where there is no linear one."""
    if not asked_for(spec):
        return None
    layers = [key for key, tensor in found.items() if key.endswith("weight") and tensor.ndim == 2]
    if len(layers) != 1:
        names = ", ".join(found) or "none"
        raise WeightsError(
            f"{spec.text}: 'pool={POOL}' needs a head of one linear layer; the file's head has {len(layers)} ({names}). "
            "Export the whole network to ONNX and take onnx/PATH"
        )
    weight = found[layers[0]]
    bias = found.get(layers[0].removesuffix("weight") + "bias")
    return Head(weight, bias, class_names(spec, len(weight)))


def _listed(spec: Spec, given: str) -> tuple[bool, Sequence[str]]:
    """Whether the option names a file, and its names."""
    try:
        if "," not in given and Path(given).is_file():
            return True, Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{spec.text}: '{given}' is no text file of class names ({error})") from None
    return False, spec.names("classes")


def class_names(spec: Spec, count: int) -> tuple[str, ...]:
    """The names that the spec gives to `count` scores, empty where it gives none."""
    given = spec.options.get("classes")
    if given is None:
        return ()
    from_file, listed = _listed(spec, given)
    names = tuple(name.strip() for name in listed if name.strip())
    if len(names) != count or len(set(names)) != count:
        given = f"'{given}' has" if from_file else "'classes' are"
        raise WeightsError(
            f"{spec.text}: the head gives {count} scores, so {count} different names belong there; {given} {len(names)}"
        )
    return names
