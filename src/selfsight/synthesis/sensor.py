"""What a camera does to a picture, in its order: it exposes, the lens blurs, the sensor adds noise, the file is compressed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from selfsight.synthesis.scene import Scene

_MIDDLE = 0.5


def exposed(image: npt.NDArray[np.float32], scene: Scene) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of sRGB values from 0, as bytes; above 1 is too bright to be told apart, unless the camera stops down.

    Noise is the picture's own, whatever else changes.
    """
    image = np.clip(image * _gain(float(image.mean()), scene.number("auto_exposure")), 0, 1)
    blur, noise, quality = scene.number("blur"), scene.number("noise"), int(scene.number("jpeg"))
    if blur:
        image = gaussian_filter(image, (blur, blur, 0), mode="nearest")
    if noise:
        rng = np.random.default_rng([scene.seed, 1, scene.frame])
        image = image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return pixels if quality == 100 else _compressed(pixels, quality)


def _gain(mean: float, share: float) -> np.float32:
    """By what the camera multiplies. sRGB being about a power of light, a factor of the one is a factor of the other."""
    return np.float32((_MIDDLE / mean) ** share if mean > 0 else 1)


def _compressed(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
