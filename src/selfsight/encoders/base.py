"""The contract of an encoder: a frozen network that turns images into features."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from selfsight.data.decode import DecodeSettings, Picture
from selfsight.errors import WeightsError
from selfsight.models.backbones import Backbone, Tokens


class Encoder(ABC):
    """What every encoder offers.

    `spec` is the text it was loaded from. `kind` is `vit`, `cnn`, `pixels` or `other`. `weights` says in a sentence where the
    weights come from. `pool` names how one vector is made of the network's output. `input_size` is the side of its input in
    pixels, `feature_width` the length D of a feature vector, `parameters` how many numbers were learnt. `notes` lists what was
    assumed or set aside while loading. `read` says how its images are decoded; `prepare` turns one (RGB picture, or pixels
    [H, W, C] of another number of channels) into the tensor [C, S, S] that `encode` takes, and is picklable.
    """

    spec: str
    kind: str
    weights: str
    pool: str
    input_size: int
    feature_width: int
    parameters: int
    notes: list[str]
    prepare: Callable[[Picture], Tensor]
    read: DecodeSettings = DecodeSettings()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of all that decides a feature: weights, architecture, preprocessing, pooling."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] on the encoder's device -> float32 [B, D] on the same device."""

    def to(self, device: torch.device | str) -> Self:
        """Move the weights; encoders without weights on a device stay as they are."""
        return self


class TorchEncoder(Encoder):
    """A backbone and a way to pool its tokens. `backbone` is the network itself, for attention maps and fine-tuning.

    Always float32: features that are kept must not depend on which machine made them.
    """

    def __init__(
        self, spec: str, backbone: Backbone, prepare: Callable[[Picture], Tensor], size: int, pool: str | None, weights: str
    ) -> None:
        self.spec = spec
        self.backbone = backbone.eval().requires_grad_(False)
        self.kind = backbone.kind
        self.weights = weights
        self.input_size = size
        self.parameters = backbone.parameter_count
        self.notes = []
        self.prepare = prepare
        # Depthwise convolutions on a CPU are a third faster with channels last.
        self._format = torch.channels_last if backbone.kind == "cnn" else torch.contiguous_format
        self.backbone.to(memory_format=self._format)
        probe = self._probe()
        self.pool = _checked_pool(spec, pool, _pools(self.kind, probe))
        self.feature_width = _pooled(probe, self.pool).shape[1]

    @cached_property
    def fingerprint(self) -> str:
        settings = self.backbone.settings
        parts = (type(self.backbone).__name__, settings.name, settings.patch_size, self.prepare, self.pool)
        return digest(map(repr, parts), self.backbone.net.state_dict().items())

    def tokens(self, images: Tensor) -> Tokens:
        """All named outputs, without gradients."""
        with torch.no_grad():
            return self.backbone(images.contiguous(memory_format=self._format))

    def encode(self, images: Tensor) -> Tensor:
        return _pooled(self.tokens(images), self.pool).float()

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Images [B, C, S, S] -> features [B, D], and in one pass the patches [B, N, W] over their grid."""
        tokens = self.tokens(images)
        return _pooled(tokens, self.pool).float(), tokens.patches.float(), tokens.grid

    def to(self, device: torch.device | str) -> Self:
        self.backbone.to(device)
        return self

    def _probe(self) -> Tokens:
        """The outputs for one black picture: what there is to pool, how wide it is, and whether the size is possible."""
        side = self.backbone.patch_size
        if self.input_size % side:
            below = max(side, self.input_size // side * side)
            raise WeightsError(
                f"{self.spec}: 'size' must be a multiple of the patch, {side}, got {self.input_size}; {below} is one"
            )
        try:
            return self.tokens(torch.zeros(1, self.backbone.settings.channels, self.input_size, self.input_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(
                f"{self.spec}: the network does not take pictures of {self.input_size} pixels ({reason})"
            ) from None


def digest(texts: Iterable[str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex digest of texts and of named tensors with their types and shapes."""
    total = hashlib.blake2b(digest_size=20)
    for text in texts:
        total.update(text.encode() + b"\0")
    for name, tensor in tensors:
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def _pools(kind: str, tokens: Tokens) -> tuple[str, ...]:
    """How the outputs can be pooled, the default first."""
    if tokens.cls is not None:
        return ("cls", "mean", "cls+mean")
    return ("mean",) if kind == "vit" else ("gap",)


def _checked_pool(spec: str, asked: str | None, valid: tuple[str, ...]) -> str:
    if asked is None:
        return valid[0]
    if asked not in valid:
        raise WeightsError(f"{spec}: 'pool' must be one of {', '.join(valid)} for this network; got '{asked}'")
    return asked


def _pooled(tokens: Tokens, pool: str) -> Tensor:
    if tokens.cls is None or pool in ("mean", "gap"):
        return tokens.pooled
    return torch.cat([tokens.cls, tokens.pooled], dim=1) if pool == "cls+mean" else tokens.cls
