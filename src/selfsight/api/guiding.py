"""An encoder as the guide of a training: what it sees in views that were made for another network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from selfsight.encoders import Encoder, TorchEncoder, load_encoder, parse_spec
from selfsight.errors import ConfigError, WeightsError
from selfsight.ssl.objectives import Look
from selfsight.ssl.recipes import Derived
from selfsight.ssl.settings import TrainSettings


class EncoderGuide:
    """A frozen encoder that looks at the views of a training: in its own normalisation, and at its own size of pictures.

    Its summary is the feature it is compared by (`pool` of the spec); its patches are those of its last layer. An ONNX file has
    summaries alone.
    """

    def __init__(self, spec: str) -> None:
        loaded: Encoder = load_encoder(spec)
        if loaded.kind == "pixels":
            raise WeightsError(
                f"--guide {spec}: has nothing to teach; expected a network, such as efficientnet-lite0 or timm/NAME"
            )
        self.encoder, self.prepare, self.spec = loaded, loaded.prepare, parse_spec(spec)
        self._shift = self._scale = torch.zeros(1)

    def on(self, device: torch.device, settings: TrainSettings) -> EncoderGuide:
        """Ready for the views of a training on its device."""
        if len(settings.views.mean) != len(self.prepare.mean):
            raise ConfigError(
                f"--guide {self.spec.text}: sees {len(self.prepare.mean)} channels, the images have {len(settings.views.mean)}"
            )
        theirs, ours = (
            [torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (each.mean, each.std)]
            for each in (settings.views, self.prepare)
        )
        self._scale, self._shift = theirs[1] / ours[1], (theirs[0] - ours[0]) / ours[1]
        self.encoder.to(device)
        return self

    def __call__(self, views: Tensor) -> Look:
        """Views [V, C, H, W] as the student takes them -> what the guide sees in them."""
        pictures = views * self._scale + self._shift
        size = (self.encoder.input_size, self.encoder.input_size)
        if pictures.shape[2:] != size:
            pictures = F.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True)
        if isinstance(self.encoder, TorchEncoder):
            return Look(*self.encoder.look(pictures))
        summaries = self.encoder.encode(pictures)
        return Look(summaries, summaries.new_zeros(len(views), 0, 0), (0, 0))

    def rows(self) -> list[Derived]:
        """What a training has to know of it."""
        patch_width = self.encoder.backbone.width if isinstance(self.encoder, TorchEncoder) else 0
        why = f"as {self.spec.text}"
        return [
            Derived("guide", self.spec.absolute, self.encoder.weights),
            Derived("objective.width", self.encoder.feature_width, why),
            Derived("objective.patch_width", patch_width, why),
            Derived("objective.fingerprint", self.encoder.fingerprint, why),
        ]

    def same(self, settings: TrainSettings) -> EncoderGuide:
        """Itself; `WeightsError` where the training began with another one."""
        before = getattr(settings.objective, "fingerprint", self.encoder.fingerprint)
        if before != self.encoder.fingerprint:
            raise WeightsError(
                f"guide {self.spec.text}: is not the one this run began with (its weights or settings changed); "
                "bring that one back, or start a new run with another --out"
            )
        return self
