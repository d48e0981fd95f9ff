"""View settings by name: those of the published recipes, and what is different about the images of a domain.

To add a domain: a line in `DOMAINS`. It names only the settings that differ from those of a recipe, each for a reason.
"""

from __future__ import annotations

from typing import Any

from selfsight.config import build
from selfsight.data.views import ViewSettings
from selfsight.errors import ConfigError, nearest

_RELEASED_BLUR = (0.0, 0.9, 0.5)
_DINOV2 = ViewSettings(global_scale=(0.32, 1.0), local_scale=(0.05, 0.32), local_size=98, blur=_RELEASED_BLUR)


def small(side: int = 32) -> ViewSettings:
    """Views of small images: global ones at the size of the images, local ones at half of it, and nothing blurred.

    Blur as strong as that of photographs would leave nothing to see; (.25, 1) keeps what two views of few pixels share.
    """
    return ViewSettings(
        global_size=side, global_scale=(0.25, 1.0), local_size=side // 2, local_scale=(0.05, 0.25), blur=(0.0, 0.0, 0.0)
    )


PUBLISHED: dict[str, ViewSettings] = {
    "dino": ViewSettings(),
    "dinov2": _DINOV2,
    "dinov2-paper": _DINOV2.model_copy(update={"blur": (1.0, 0.1, 0.5)}),
    "dinov3": ViewSettings(
        global_size=256,
        global_scale=(0.32, 1.0),
        local_size=112,
        local_scale=(0.05, 0.32),
        flip=0.0,
        blur=_RELEASED_BLUR,
    ),
    "small": small(),
}
"""
- `dino`: main_dino.py of facebookresearch/dino.
- `dinov2`: dinov2/configs (ssl_default_config.yaml, train/vitl14.yaml) and what dinov2/data really does: its `GaussianBlur(p)`
  hands 1 - p to torchvision's `RandomApply`, so the released weights saw the first global view never blurred and the second
  with probability .9. The kernel there is cut at 9 pixels, ours at 3 sigma.
- `dinov2-paper`: the same with the blur as it is written: always on the first global view, .1 on the second.
- `dinov3`: dinov3_vit7b16_pretrain.yaml, which has no horizontal flips; the blur is that of DINOv2's code.
- `small`: images of 32 pixels, such as CIFAR; `small(side)` gives others.
"""

DEFAULT_DOMAIN = "photos"

DOMAINS: dict[str, dict[str, Any]] = {
    # What the recipes were made for.
    "photos": {},
    "documents": {
        "flip": 0.0,  # mirrored writing occurs nowhere
        "brightness": 0.3,  # scanners differ, but less than daylight does
        "contrast": 0.3,
        "saturation": 0.1,  # ink and paper have little colour; what there is (a stamp, a logo) tells pages apart
        "hue": 0.0,
        "solarize": 0.0,  # black paper
        "blur_sigma": [0.1, 1.0],  # more would wipe out thin strokes
        "global_scale": [0.5, 1.0],  # the layout of a page is seen in much of it
        "local_scale": [0.2, 0.5],  # a smaller part of a page is often blank
    },
    # From above there is neither up nor left; light and colour change as they do in photographs.
    "aerial": {"vertical_flip": 0.5, "quarter_turns": True},
    "microscopy": {
        "vertical_flip": 0.5,  # a slide lies on the stage any way round
        "quarter_turns": True,
        "hue": 0.0,  # the colour says which dye bound where
        "saturation": 0.0,  # taken over by the strength of the stains
        "grey": 0.0,
        "solarize": 0.0,  # no microscope gives such an image
        "stain": 0.05,  # laboratories and scanners differ by about as much (Tellez et al. 2018, HED-light)
        # Brightness and contrast stay as strong as in the recipe: lamp and exposure vary.
    },
}


def domain_changes(domain: str, channels: int = 3) -> dict[str, Any]:
    """What the domain changes in `ViewSettings`; stains are colours, so images of other than three channels have none.

    An unknown domain is a `ConfigError` that names the nearest.
    """
    if domain not in DOMAINS:
        raise ConfigError(f"--domain: no domain '{domain}'. {nearest(domain, DOMAINS)}")
    return {key: value for key, value in DOMAINS[domain].items() if key != "stain" or channels == 3}


def for_domain(settings: ViewSettings, domain: str) -> ViewSettings:
    """The settings with the changes of a domain."""
    changes = domain_changes(domain, settings.read.channels)
    return build(ViewSettings, settings.model_dump() | changes, f"domain {domain}")
