"""An encoder that sees well already, trained further on images of one's own.

What is new are the heads. Until they have found their prototypes their gradients say nothing, so the backbone waits; then it
learns slowly, its first layers slowest of all (layer decay, Clark et al. 2020, section 2), and the teacher follows slowly too.
"""

from __future__ import annotations

from selfsight.models.backbones import is_vit_name
from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts
from selfsight.ssl.recipes.dino import dino

_SHARE = 0.2
"""Of the rate at which `dino` trains a network that starts from nothing."""
_SETTLING = 0.2


def adapt(facts: Facts, backbone: str | None) -> list[Derived]:
    """`dino` for a network that `--init` brings."""
    rows = [row for row in dino(facts, backbone) if not row.key.startswith("optimizer.") and row.key != "backbone.drop_path"]
    batch = next(row.value for row in rows if row.key == "batch_size")
    usual = max(1e-3, 2e-3 * batch / 256) if facts.side < SMALL_SIDE else 5e-4 * batch / 256
    vit = backbone is None or is_vit_name(backbone)
    changes = [
        Derived("teacher_momentum", 0.996, "the teacher sees well and moves slowly"),
        Derived("optimizer.learning_rate", round(_SHARE * usual, 8), "a fifth of the usual rate, with AdamW for CNNs too"),
        Derived("optimizer.layer_decay", 0.75 if vit else 0.8, "what first layers see holds for all images"),
        Derived("optimizer.patch_embed_rate", 0.2, "as DINOv2"),
        Derived("optimizer.freeze_backbone", _SETTLING, "new heads settle first"),
        Derived("optimizer.weight_decay", 0.04, "published"),
        Derived("optimizer.final_weight_decay", 0.04, "no more than at the start: the weights are good"),
        Derived("optimizer.freeze_last_layer", 0.0, "the backbone rests instead"),
    ]
    known = {row.key for row in changes}
    return [*(row for row in rows if row.key not in known), *changes]
