"""What a training is handed by encoders: weights to start from. The training itself knows no encoders."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from selfsight.api.guiding import EncoderGuide
from selfsight.encoders import Encoder, TorchEncoder, load_encoder, parse_spec
from selfsight.encoders.run import Carried, carried
from selfsight.encoders.spec import RUNS
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import Backbone
from selfsight.runs import RunFolder
from selfsight.ssl import checkpoint
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.recipes import Derived
from selfsight.ssl.recipes.base import multiple
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.start import BACKBONE, heads_that_fit

_USUAL = 224
_LARGEST = 256
"""Encoders for larger pictures than this are trained at the usual size: a training at 518 pixels is another undertaking."""


class Initial:
    """An encoder as the beginning of a training; `WeightsError` for one that cannot be trained."""

    def __init__(self, spec: str, where: str = "--init") -> None:
        parsed = parse_spec(spec)
        if parsed.family == "onnx":
            raise _no_backbone(f"{where} {spec}", "an ONNX file holds a network that runs but cannot be trained")
        loaded: Encoder = load_encoder(spec)
        if not isinstance(loaded, TorchEncoder):
            raise _no_backbone(f"{where} {spec}", "it has no weights")
        self.spec, self.encoder = parsed, loaded
        if not loaded.prepare.one_shape or loaded.prepare.width is not None:
            raise WeightsError(
                f"{where} {spec}: trains on square views; leave 'aspect' and a width of its own out, such as ?size=224"
            )
        self.carried = carried(parsed) if parsed.family == RUNS else Carried("", {})

    @property
    def backbone(self) -> Backbone:
        return self.encoder.backbone

    @property
    def name(self) -> str:
        """The architecture, as a training names it."""
        return self.backbone.settings.name

    @property
    def channels(self) -> int:
        return self.backbone.settings.channels

    @property
    def notes(self) -> list[str]:
        """What was assumed while loading; of a run's heads the plan speaks itself."""
        return [] if self.spec.family == RUNS else self.encoder.notes

    @property
    def size(self) -> int:
        """Side of the global views in pixels."""
        wanted = self.encoder.input_size
        if wanted <= _LARGEST or "size" in self.spec.options:
            return wanted
        return multiple(_USUAL, self.backbone.patch_size)

    def rows(self) -> list[Derived]:
        """What follows from the encoder: network, sizes and normalisation."""
        why, settings, prepare = f"as {self.spec.text}", self.backbone.settings, self.encoder.prepare
        rows = [
            Derived("backbone.name", settings.name, why),
            Derived("backbone.image_size", _positions_for(self.backbone), why),
            Derived("views.global_size", self.size, why),
            Derived("views.local_size", self._local_size(), why),
        ]
        if settings.patch_size is not None:
            rows.append(Derived("backbone.patch_size", settings.patch_size, why))
        if settings.channels != 3:
            rows.append(Derived("backbone.channels", settings.channels, why))
        for key in ("mean", "std"):
            rows.append(Derived(f"views.{key}", [float(value) for value in getattr(prepare, key)], why))
        return rows

    def _local_size(self) -> int:
        share = 96 / 224 if self.size >= 100 else 1 / 2
        return multiple(round(self.size * share), self.backbone.patch_size)

    def tensors(self, settings: TrainSettings) -> dict[str, Tensor]:
        """Weights by the names of `teacher.safetensors`; positions are interpolated as the encoder itself does it."""
        own = {f"{BACKBONE}{key}": value for key, value in self.backbone.net.state_dict().items()}
        size, patch = settings.backbone.image_size, self.backbone.patch_size
        embedding = getattr(self.backbone, "position_embedding", None)
        if embedding is not None and f"{BACKBONE}pos_embed" in own and size != _positions_for(self.backbone):
            own[f"{BACKBONE}pos_embed"] = embedding((size // patch, size // patch)).detach()
        return own | (self.carried.tensors if self.carried.objective == settings.objective.name else {})

    def check_summary(self) -> None:
        """`WeightsError` where its pool is another vector than the one that a training compares."""
        made = self.encoder.prepare
        look = torch.randn(1, len(made.mean), *made.shape, generator=torch.Generator().manual_seed(0))
        summary = self.encoder.tokens(look).summary.float()
        if self.encoder.feature_width != summary.shape[1] or not torch.allclose(self.encoder.encode(look), summary, atol=1e-4):
            raise WeightsError(
                f"{self.spec.text}: fine-tuning trains on what the network sums up by itself, not on pool={self.encoder.pool}; "
                "leave pool out"
            )

    def checked(self, settings: TrainSettings) -> Derived:
        """The line of the plan that says what the training begins with; `ConfigError` where its settings ask for another one."""
        if settings.backbone.name != self.name:
            raise ConfigError(
                f"backbone.name: --init {self.spec.text} is a {self.name}; leave the backbone out. Got {settings.backbone.name}."
            )
        heads = OBJECTIVES[settings.objective.name](settings.objective).heads(self.backbone.width)
        brought = heads_that_fit(heads, self.tensors(settings))
        new = [name for name in heads if name not in brought]
        told = [f"{what} of: {', '.join(names)}" for what, names in (("its heads", brought), ("new heads", new)) if names]
        return Derived("init", self.spec.absolute, "; ".join([self.encoder.weights, *told]))


def _no_backbone(asked: str, why: str) -> WeightsError:
    return WeightsError(f"{asked}: {why}; expected runs/NAME, timm/NAME, file/PATH?arch=NAME, efficientnet-lite0 or random/NAME")


def _positions_for(backbone: Backbone) -> int:
    """The size of pictures for which a network has positions."""
    made_for = getattr(getattr(backbone.net, "patch_embed", None), "img_size", None)
    return int(made_for[0]) if isinstance(made_for, tuple) else backbone.settings.image_size


class Handed:
    """What encoders give to a training; each is loaded once, when it is first asked for."""

    def __init__(self) -> None:
        self._initial: dict[str, Initial] = {}
        self._guides: dict[str, EncoderGuide] = {}

    def initial(self, spec: object, where: str = "--init") -> Initial | None:
        """The encoder to start from, if there is one; `where` it was named."""
        if spec is None:
            return None
        spec = _named("init", spec)
        if spec not in self._initial:
            found = Initial(spec, where)
            self._initial |= {spec: found, found.spec.absolute: found}
        return self._initial[spec]

    def guide(self, spec: object) -> EncoderGuide | None:
        """The encoder to follow, if there is one."""
        if spec is None:
            return None
        spec = _named("guide", spec)
        if spec not in self._guides:
            found = EncoderGuide(spec)
            self._guides |= {spec: found, found.spec.absolute: found}
        return self._guides[spec]


def _named(key: str, spec: object) -> str:
    if not isinstance(spec, str):
        raise ConfigError(f"{key}: expected an encoder such as efficientnet-lite0. Got {spec!r}.")
    return spec


def saved_start(folder: RunFolder, settings: TrainSettings) -> Mapping[str, Tensor] | None:
    """The weights that a run started from, out of its own folder; None where it started from drawn ones."""
    return None if settings.init is None else checkpoint.read_network(folder.init)
