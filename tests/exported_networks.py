"""Small runs with drawn weights, for the tests of exports: run folders as a training leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from encoder_files import pictures
from selfsight.models.backbones import BackboneSettings, build_backbone

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


def run(path: Path, backbone: dict[str, Any], **settings: Any) -> Path:
    """A run folder whose teacher has weights that matter everywhere, also where they are born as 0 or 1."""
    path.mkdir(parents=True)
    built = BackboneSettings(**backbone)
    mean, std = (MEAN, STD) if built.channels == 3 else (MEAN[:1] * built.channels, STD[:1] * built.channels)
    views = {"global_size": built.image_size, "mean": mean, "std": std, "read": {"channels": built.channels}}
    values = {"recipe": "dino", "seed": 3, "data": "/somewhere/photos", "images": 12, "epochs": 2.0, "batch_size": 4}
    values |= {"backbone": built.model_dump(mode="json"), "views": views, **settings}
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    net = build_backbone(built).net
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_file({f"backbone.{name}": tensor for name, tensor in net.state_dict().items()}, path / "teacher.safetensors")
    return path


def photographs(folder: Path, count: int = 3) -> list[Image.Image]:
    """Pictures of several shapes that went through JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for number, picture in enumerate(pictures(count, (60, 44))):
        path = folder / f"{number}.jpg"
        picture.resize([(60, 44), (44, 60), (97, 50)][number % 3], Image.Resampling.BICUBIC).save(path, quality=90)
        out.append(Image.open(path).convert("RGB"))
    return out
