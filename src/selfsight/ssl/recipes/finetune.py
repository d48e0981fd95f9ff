"""An encoder that sees well already, given a new head and trained on labels.

The head comes from a linear probe on the frozen features, so that the network is not sent the gradients of a drawn one (LP-FT,
Kumar et al. 2022). Then all of it learns, its first layers slowest (layer decay, Clark et al. 2020, section 2).
"""

from __future__ import annotations

from selfsight.models.backbones import is_vit_name
from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts, channels, fitting_batch

UNBALANCED = 1.5
"""Times that the largest class may be the smallest before their images are weighted."""
EPOCHS = 20.0
_WINDOW = 100


def finetune(facts: Facts, backbone: str | None) -> list[Derived]:
    """For the network that an encoder brings; what learns of it is among the facts."""
    small = facts.side < SMALL_SIDE
    batch = fitting_batch(facts, 128 if facts.accelerator else 32)
    rows = [
        Derived("objective.name", "supervised", "recipe"),
        Derived("objective.classes", facts.classes, f"{facts.classes} classes"),
        Derived("objective.label_smoothing", 0.0, "probabilities are calibrated instead"),
        Derived("epochs", EPOCHS, "ends earlier without better weights"),
        Derived("batch_size", batch, f"{facts.images} images, {'GPU' if facts.accelerator else 'no GPU'}"),
        *_rates(facts, batch, small, backbone is None or is_vit_name(backbone)),
        Derived("views.local_count", 0, "whole images have labels, small parts may not"),
        Derived("views.global_scale", [0.5, 1.0] if small else [0.35, 1.0], "the object must be in it"),
        Derived("views.solarize", 0.0, "mild colours"),
        Derived("views.grey", 0.0, "colour may tell classes apart"),
        Derived("views.blur", [0.0, 0.0, 0.0], "mild"),
        *(Derived(f"views.{key}", value, "mild colours") for key, value in _MILD.items()),
    ]
    if facts.multi_label:
        rows.append(Derived("objective.multi_label", True, "lists of labels"))
    elif weights := balanced(facts.counts):
        most, least = max(facts.counts), min(n for n in facts.counts if n)
        why = f"classes of {least} to {most} images: each weighs the same in the loss"
        rows.append(Derived("objective.class_weights", weights, why))
    return [*rows, *(channels(facts) if facts.channels != 3 else ())]


_MILD = {"jitter": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.1, "hue": 0.02}


def balanced(counts: tuple[int, ...]) -> list[float]:
    """n / (classes * n_k) for each class, 1 where it has no image; empty where the classes are near enough of one size.

    Weights, not more draws of rare classes: the order of the images stays that of every other training, each once an epoch.
    """
    present = [count for count in counts if count]
    if not present or max(present) < UNBALANCED * min(present):
        return []
    return [round(sum(present) / (len(present) * count), 4) if count else 1.0 for count in counts]


def _rates(facts: Facts, batch: int, small: bool, vit: bool) -> list[Derived]:
    usual, why = (max(5e-4, 1e-3 * batch / 256), "small images") if small else (5e-4 * batch / 256, "5e-4 x batch/256")
    factor, what = {"all": (1.0, ""), "head": (4.0, ", the head alone x 4"), "adapters": (5.0, ", adapters x 5")}[facts.learns]
    steps = max(1, facts.images // batch)
    momentum = round(1 - 1 / min(_WINDOW, max(1.0, steps / 2)), 4)
    return [
        Derived("teacher_momentum", momentum, f"mean over {'half an epoch' if steps < 2 * _WINDOW else 'a hundred steps'}"),
        Derived("final_teacher_momentum", momentum, "as at the start"),
        Derived("optimizer.learning_rate", round(factor * usual, 8), why + what),
        Derived("optimizer.layer_decay", 0.75 if vit else 0.8, "what first layers see holds for all images"),
        Derived("optimizer.weight_decay", 0.05, "usual with AdamW"),
        Derived("optimizer.final_weight_decay", 0.05, "usual with AdamW"),
        Derived("optimizer.freeze_last_layer", 0.0, "there are no prototypes"),
    ]
