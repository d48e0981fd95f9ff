"""What a camera does to a picture, in its order: the lens blurs, the sensor adds noise, the file is compressed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from selfsight.synthesis.scene import Scene


def exposed(image: npt.NDArray[np.float32], scene: Scene) -> npt.NDArray[np.uint8]:
    """[height, width, 3] of sRGB values from 0 to 1, as bytes. Noise is the scene's own, whatever else changes."""
    blur, noise, quality = scene.number("blur"), scene.number("noise"), int(scene.number("jpeg"))
    if blur:
        image = gaussian_filter(image, (blur, blur, 0), mode="nearest")
    if noise:
        rng = np.random.default_rng([scene.seed, 1])
        image = image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return pixels if quality == 100 else _compressed(pixels, quality)


def _compressed(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
