"""What another encoder sees, in a network of one's own choice."""

from __future__ import annotations

from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts, channels
from selfsight.ssl.recipes.dino import dino

_KEPT = ("backbone.", "batch_size", "views.global_size", "views.local_size", "views.blur")


def distill(facts: Facts, backbone: str | None) -> list[Derived]:
    """The network and the sizes that `dino` takes, trained to see what a guide sees (Beyer et al. 2022)."""
    small = facts.side < SMALL_SIDE
    like = [row for row in dino(facts._replace(channels=3), backbone) if row.key.startswith(_KEPT)]
    batch = next(row.value for row in like if row.key == "batch_size")
    rate = round(max(2e-3, 4e-3 * batch / 256) if small else 1e-3 * batch / 512, 7)
    rows = [
        Derived("objective.name", "distill", "recipe"),
        Derived("teacher_momentum", 0.99, "mean over some hundred steps"),
        Derived("final_teacher_momentum", 0.99, "mean over some hundred steps"),
        Derived("optimizer.learning_rate", rate, "small network" if small else "1e-3 x batch/512"),
        Derived("optimizer.weight_decay", 0.05, "usual with AdamW"),
        Derived("optimizer.final_weight_decay", 0.05, "usual with AdamW"),
        Derived("optimizer.freeze_last_layer", 0.0, "there are no prototypes"),
        Derived("views.local_count", 0, "the guide looks at every view"),
        Derived("views.global_scale", [0.5, 1.0] if small else [0.25, 1.0], "the guide knows whole objects"),
        Derived("views.solarize", 0.0, "no photograph looks so"),
    ]
    if not small:
        rows.append(Derived("views.blur", [0.1, 0.1, 0.1], "the guide saw sharp pictures"))
    known = {row.key for row in rows}
    return [*(row for row in like if row.key not in known), *rows, *(channels(facts) if facts.channels != 3 else ())]
