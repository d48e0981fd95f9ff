"""A small spec for each backend, and for each factor two values between which its pictures differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsight.synthesis.backends import Backend, backend
from selfsight.synthesis.files import resolved
from selfsight.synthesis.loading import checked
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.spec import SynthSpec

SPECS: dict[str, dict[str, Any]] = {
    "blender": {
        "classes": {"disc": {"assets": "model/sphere"}, "bolt": {"assets": ["model/suzanne"]}},
        "render": {"samples": 4, "device": "cpu"},
    },
    "composite": {"classes": {"disc": {"assets": "shape/disc"}, "bolt": {"assets": ["bolt.png", "shape/star"]}}},
}
STILL = {"noise": 0, "x": 0.5, "y": 0.5, "size": 0.5, "rotation": 0, "hue": 20, "light_azimuth": 0, "background": "plain"}
"""Nothing varies, and an object stands in the middle."""
VALUES: dict[str, tuple[Any, Any]] = {
    "size": (0.3, 0.5),
    "x": (0.4, 0.6),
    "y": (0.4, 0.6),
    "rotation": (0, 40),
    "texture": ("plain", "stripes"),
    "texture_scale": (0.2, 0.4),
    "texture_contrast": (0.4, 0.8),
    "hue": (0, 120),
    "saturation": (0.1, 0.9),
    "brightness": (0.3, 0.9),
    "count": (1, 2),
    "occlusion": (0, 0.4),
    "distractors": (0, 2),
    "background": ("plain", "mottled"),
    "background_hue": (0, 120),
    "background_saturation": (0, 0.8),
    "background_brightness": (0.3, 0.7),
    "light": (0.5, 1),
    "lights": (1, 3),
    "light_azimuth": (0, 90),
    "light_elevation": (30, 60),
    "light_temperature": (3000, 9000),
    "ambient": (0.2, 0.8),
    "auto_exposure": (0, 1),
    "blur": (0, 2),
    "noise": (0, 0.05),
    "jpeg": (10, 100),
    "pitch": (0, 40),
    "roll": (0, 40),
    "roughness": (0.1, 0.9),
    "metallic": (0, 1),
    "drop": (0, 1),
    "scenery": ("none", "scenery/tray"),
    "hdri": ("none", "sky.hdr"),
    "distance": (1, 1.5),
    "focal_length": (35, 80),
    "camera_azimuth": (0, 60),
    "camera_elevation": (20, 60),
}
MOVING = {"asset", "size", "x", "y", "rotation", "count", "occlusion", "pitch", "roll", "drop"} | {
    *("distance", "focal_length", "camera_azimuth", "camera_elevation")
}
"""Factors that change which pixels are of an object."""


def spec_of(name: str, folder: Path, **changes: Any) -> SynthSpec:
    """The spec of a backend, with its files in `folder`; `factors` are laid over those of `STILL`."""
    (folder / "bolt.png").exists() or cutout(folder / "bolt.png")
    (folder / "sky.hdr").exists() or panorama(folder / "sky.hdr")
    factors = STILL | changes.pop("factors", {})
    values = {"name": "case", "size": 64, "backend": name, **SPECS[name], "factors": factors, **changes}
    return resolved(checked(SynthSpec.model_validate(values), "case"), backend(name, folder), "case")


def drawer(name: str, folder: Path) -> Backend:
    return backend(name, folder)


def scene_of(name: str, folder: Path, index: int = 0, **changes: Any) -> Scene:
    return sample(spec_of(name, folder, **changes), 0, "train", index)


def cutout(path: Path, colour: tuple[int, int, int] = (200, 30, 30), ground: tuple[int, int, int] = (255, 255, 255)) -> None:
    """A plate of 120 x 60 pixels with a dent, on transparent ground of some colour."""
    pixels = np.zeros((100, 160, 4), dtype=np.uint8)
    pixels[..., :3] = ground
    pixels[20:80, 20:140] = (*colour, 255)
    pixels[20:40, 60:80, :] = (*ground, 0)
    Image.fromarray(pixels).save(path)


def panorama(path: Path) -> None:
    """Surroundings of 64 x 32 pixels in Radiance's format, not run-length coded: blue, with a bright red side."""
    pixels = np.zeros((32, 64, 4), dtype=np.uint8)
    pixels[:] = (20, 40, 160, 128)
    pixels[8:20, 10:24] = (250, 60, 20, 132)
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 32 +X 64\n" + pixels.tobytes())
