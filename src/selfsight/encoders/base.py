"""The contract of an encoder: a frozen network that turns images into features."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from selfsight.data.decode import DecodeSettings
from selfsight.encoders import deployed
from selfsight.encoders.deployed import Head
from selfsight.encoders.pools import VECTORS, Pool, of_tokens, own_pool, pools_of
from selfsight.encoders.preprocess import Preprocess
from selfsight.errors import WeightsError
from selfsight.models.backbones import Backbone, Tokens

T = TypeVar("T")
STRIDE = 32
"""Of the last stage of almost every CNN."""
_WORKINGS = ("num_heads", "eps", "scale", "global_pool", "stride", "padding", "dilation", "groups", "window_size", "approximate")


class Encoder(ABC):
    """What every encoder offers.

    `spec` is the text it was loaded from. `kind` is `vit`, `cnn`, `pixels` or `other`. `weights` says in a sentence where the
    weights come from. `pool` names what is taken of the network's output, one of `pools` (see the module of that name), whose
    first is the default. `input_size` is the side of its input in pixels, the height where it is not square; `feature_width` the
    length D of a feature vector, which is laid out as `feature_shape`: (D,), or (N, W) for a dense pool. `parameters` is how many
    numbers were learnt. `notes` lists what was assumed or set aside while loading. `read` says how its images are decoded;
    `prepare` turns one (RGB picture, or pixels [H, W, C] of another number of channels) into the tensor [C, H, W] that `encode`
    takes, and is picklable. `network` is the whole of it as one module, images [B, C, H, W] -> features [B, D], for other
    runtimes; None where torch has none.
    """

    spec: str
    kind: str
    weights: str
    pool: str
    pools: tuple[str, ...]
    input_size: int
    feature_width: int
    parameters: int
    notes: list[str]
    prepare: Preprocess
    classes: tuple[str, ...] = ()
    read: DecodeSettings = DecodeSettings()
    network: nn.Module | None = None

    @property
    def deployed(self) -> bool:
        """Whether the features are the scores of the network's own head, for `classes` if these are known."""
        return self.pool == deployed.POOL

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (self.feature_width,)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of all that decides a feature: weights, architecture, preprocessing, pooling."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """[B, C, H, W] on the encoder's device -> float32 [B, D] on the same device."""

    def to(self, device: torch.device | str) -> Self:
        """Move the weights; encoders without weights on a device stay as they are."""
        return self


class Pooled(nn.Module):
    """Backbone, pool and maybe a head as one network: images [B, C, H, W] -> features [B, D]. What is run, compiled, exported."""

    def __init__(self, backbone: Backbone, pool: Pool, head: Head | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.head = nn.Identity() if head is None else head.layer()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.pool(self.backbone, images).flatten(1).float())
        return features


class TorchEncoder(Encoder):
    """A backbone and a pool. `backbone` is the network itself, for attention maps and fine-tuning; `network` gives its features.

    Always float32: features that are kept must not depend on which machine made them. With a `head` the features are its scores.
    """

    network: Pooled

    def __init__(
        self, spec: str, backbone: Backbone, prepare: Preprocess, pool: str | None, weights: str, head: Head | None = None
    ) -> None:
        self.spec = spec
        self.backbone = backbone.eval().requires_grad_(False)
        self.kind = backbone.kind
        self.weights = weights
        self.prepare = _in_whole_patches(spec, prepare, backbone)
        self.input_size = prepare.size
        self.parameters = backbone.parameter_count
        self.notes = []
        # Depthwise convolutions on a CPU are a third faster with channels last.
        self._format = torch.channels_last if backbone.kind == "cnn" else torch.contiguous_format
        self.backbone.to(memory_format=self._format)
        known = self._try(lambda: pools_of(backbone, self.tokens(self._black())))
        self.pools = tuple(known)
        if head is None:
            self.pool = _checked_pool(spec, pool, self.pools)
            below = known[self.pool]
        else:
            self.pool, self.classes = deployed.POOL, head.classes
            below = self._below(head, known)
        self._shape = tuple(below(backbone, self._black()).shape[1:]) if head is None else (len(head.weight),)
        if len(self._shape) > 1 and not self.prepare.one_shape and self.pool != "registers":
            raise WeightsError(f"{spec}: 'pool={self.pool}' has another length for every shape of picture; leave 'aspect' out")
        self.feature_width = math.prod(self._shape)
        self.network = Pooled(backbone, below, head).eval()

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return self._shape

    @cached_property
    def fingerprint(self) -> str:
        settings = self.backbone.settings
        parts = (type(self.backbone).__name__, settings.name, settings.patch_size, self.prepare, self.pool)
        tensors = [*self.backbone.net.state_dict().items(), *self.network.head.state_dict().items()]
        return digest([*map(repr, (*parts, *self.classes)), *_workings(self.backbone.net)], tensors)

    def tokens(self, images: Tensor) -> Tokens:
        """All named outputs, without gradients."""
        with torch.no_grad():
            return self.backbone(images.contiguous(memory_format=self._format))

    def encode(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.network(images.contiguous(memory_format=self._format))
        return features

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Images [B, C, H, W] -> features [B, D], and the patches [B, N, W] over their grid; in one pass where the pool is one of
        tokens."""
        tokens = self.tokens(images)
        pooled = of_tokens(tokens, self.pool)
        features = self.encode(images) if pooled is None else pooled.flatten(1).float()
        return features, tokens.patches.float(), tokens.grid

    def to(self, device: torch.device | str) -> Self:
        self.network.to(device)
        return self

    def _black(self) -> Tensor:
        """A black picture."""
        return torch.zeros(1, self.backbone.settings.channels, *self.prepare.shape)

    def _below(self, head: Head, known: Mapping[str, Pool]) -> Pool:
        """The pool whose vectors the head takes: the network's own, then the default before others of its width."""
        own = {"the network's own": own_pool} if head.own and self.kind == "vit" else {}
        pools = own | {name: known[name] for name in known if name in VECTORS}
        widths = {name: pool(self.backbone, self._black()).shape[1] for name, pool in pools.items()}
        wanted = head.weight.shape[1]
        for name, width in widths.items():
            if width == wanted:
                return pools[name]
        said = ", ".join(f"{name} {width}" for name, width in widths.items() if name not in own)
        raise WeightsError(f"{self.spec}: the head takes {wanted} numbers, and no pool gives as many ({said})")

    def _try(self, call: Callable[[], T]) -> T:
        """What the network makes of a black picture; a `WeightsError` where it does not take the size."""
        try:
            return call()
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{self.spec}: the network does not take pictures of {self.prepare.text} ({reason})") from None


def _workings(net: nn.Module) -> list[str]:
    """What a network does with its tensors, as far as these do not tell: kinds of modules, heads, epsilons, windows..."""
    found = []
    for name, module in net.named_modules():
        told = {key: value for key in _WORKINGS if isinstance(value := getattr(module, key, None), int | float | str | tuple)}
        found.append(f"{name} {type(module).__name__} {sorted(told.items())}")
    return found


def _in_whole_patches(spec: str, prepare: Preprocess, backbone: Backbone) -> Preprocess:
    """`prepare` for pictures of whole patches; CNNs take any size, and are given few sizes, in steps of their last stride."""
    side = backbone.patch_size
    for length in dict.fromkeys(prepare.shape):
        if length % side:
            below = max(side, length // side * side)
            raise WeightsError(f"{spec}: 'size' must be a multiple of the patch, {side}, got {length}; {below} is one")
    return prepare if prepare.one_shape else replace(prepare, multiple=side if backbone.kind == "vit" else STRIDE)


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


def _checked_pool(spec: str, asked: str | None, valid: tuple[str, ...]) -> str:
    if asked is None:
        return valid[0]
    if asked not in valid:
        raise WeightsError(f"{spec}: 'pool' must be one of {', '.join(valid)} for this network; got '{asked}'")
    return asked
