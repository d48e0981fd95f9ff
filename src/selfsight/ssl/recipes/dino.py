"""DINO (Caron et al. 2021), scaled to the number and the size of the images."""

from __future__ import annotations

from selfsight.models.backbones import is_vit_name, patch_of
from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts, channels, fitting_batch, interpolated, multiple


def dino(facts: Facts, backbone: str | None) -> list[Derived]:
    """DINO (Caron et al. 2021) scaled to the number and the size of the images."""
    prototypes, temperature, momentum = interpolated(facts.images)
    images = f"{facts.images} images"
    rows = [
        Derived("objective.name", "dino", "recipe"),
        Derived("objective.head.prototypes", prototypes, images),
        Derived("objective.teacher_temperature", temperature, images),
        Derived("teacher_momentum", momentum, images),
    ]
    if facts.channels != 3:
        rows += channels(facts)
    if facts.side < SMALL_SIDE:
        return [*_small(facts, backbone), *rows]
    cold = Derived("objective.warmup_teacher_temperature", min(0.04, temperature), "published")
    return [*_photographs(facts, backbone), *rows, cold]


def _small(facts: Facts, backbone: str | None) -> list[Derived]:
    """Small images: native size, few views that overlap much, a cold and quickly centred teacher.

    A short training must first break the symmetry between prototypes. Deviations between images grow only while (agreement of
    two views under the present features) x (student / teacher temperature) is above 1, so early on the views overlap and the
    teacher is cold.
    """
    why = f"images of {facts.side} px"
    patch = 8 if facts.side >= 40 else 4
    name = backbone or (f"vit_w192_d6_p{patch}_conv" if facts.accelerator else f"vit_w64_d3_p{patch}_conv")
    patch = patch_of(name)
    size = multiple(min(facts.side, 64), patch)
    batch = fitting_batch(facts, 256 if facts.accelerator else 32)
    return [
        Derived("backbone.name", name, "given" if backbone else f"{why}, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("backbone.image_size", size, why),
        Derived("objective.head.hidden", 512, "small images"),
        Derived("objective.head.bottleneck", 64, "small images"),
        Derived("objective.warmup_teacher_temperature", 0.01, "breaks the symmetry early"),
        Derived("objective.koleo", 0.1, "keeps the features of few images apart"),
        Derived(
            "objective.center_momentum", 0.5 if batch < 64 else 0.9, f"batch of {batch}, short run" if batch < 64 else "published"
        ),
        Derived("batch_size", batch, f"{facts.images} images, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("optimizer.learning_rate", round(max(1e-3, 2e-3 * batch / 256), 7), "small network"),
        Derived("views.global_size", size, why),
        Derived("views.local_size", multiple(size // 2, patch), "half of the global views"),
        Derived("views.local_count", 6 if facts.accelerator else 2, "GPU" if facts.accelerator else "no GPU"),
        Derived("views.global_scale", [0.5, 1.0], "views of small images must overlap"),
        Derived("views.local_scale", [0.2, 0.4], "views of small images must overlap"),
        Derived("views.blur", [0.0, 0.0, 0.0], "blur would leave nothing of small images"),
    ]


def _photographs(facts: Facts, backbone: str | None) -> list[Derived]:
    """The published settings, with a smaller network where there is no accelerator."""
    name = backbone or ("vit_small_patch16_224" if facts.accelerator else "vit_tiny_patch16_224")
    patch = patch_of(name)
    batch = fitting_batch(facts, 256 if facts.accelerator else 64)
    rows = [
        Derived("backbone.name", name, "given" if backbone else "GPU" if facts.accelerator else "no GPU"),
        Derived("backbone.image_size", multiple(224, patch), f"images of {facts.side} px"),
        Derived("batch_size", batch, f"{facts.images} images, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("views.global_size", multiple(224, patch), "published"),
        Derived("views.local_size", multiple(96, patch), "published"),
    ]
    if is_vit_name(name):
        rows.append(Derived("backbone.drop_path", 0.1, "published"))
    return [*rows, *optimizer_for(name, batch), *views_for(name)]


def optimizer_for(name: str, batch: int) -> list[Derived]:
    """AdamW, and for CNNs with batch norm the published SGD (README of facebookresearch/dino, "ResNet-50 and other convnets").

    ConvNeXt has a transformer's norms and was made with AdamW (Liu et al. 2022), so it is trained like a ViT.
    """
    if is_vit_name(name) or name.startswith("convnext"):
        return [Derived("optimizer.learning_rate", round(5e-4 * batch / 256, 7), "5e-4 x batch/256")]
    return [
        Derived("optimizer.kind", "sgd", "published for CNNs"),
        Derived("optimizer.learning_rate", round(0.03 * batch / 256, 7), "0.03 x batch/256"),
        Derived("optimizer.weight_decay", 1e-4, "published for CNNs"),
        Derived("optimizer.final_weight_decay", 1e-4, "published for CNNs"),
    ]


def views_for(name: str) -> list[Derived]:
    """Larger and smaller parts of the image for CNNs."""
    if is_vit_name(name):
        return []
    return [
        Derived("views.global_scale", [0.14, 1.0], "published for CNNs"),
        Derived("views.local_scale", [0.05, 0.14], "published for CNNs"),
    ]
