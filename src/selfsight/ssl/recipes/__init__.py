"""Recipes: full configurations derived from the images at hand and the budget.

A recipe is a function from `Facts` to values; whatever it derived is listed with its reason, printed before training starts and
written to `config.yaml`. To add one: a file here with a function that follows `Recipe`, and a line in `RECIPES`.
"""

from __future__ import annotations

from typing import Any

from selfsight.data.presets import domain_changes
from selfsight.ssl.recipes.adapt import adapt
from selfsight.ssl.recipes.base import Derived, Facts, Recipe
from selfsight.ssl.recipes.dino import dino
from selfsight.ssl.recipes.dinov2 import dinov2
from selfsight.ssl.recipes.dinov3 import dinov3
from selfsight.ssl.recipes.dinov3_highres import dinov3_highres
from selfsight.ssl.recipes.distill import distill
from selfsight.ssl.recipes.finetune import finetune
from selfsight.ssl.recipes.supervised import supervised

RECIPES: dict[str, Recipe] = {
    "dino": dino,
    "dinov2": dinov2,
    "dinov3": dinov3,
    "dinov3-highres": dinov3_highres,
    "adapt": adapt,
    "distill": distill,
    "supervised": supervised,
    "finetune": finetune,
}

__all__ = ["NEEDS", "RECIPES", "Derived", "Facts", "Recipe", "as_tree", "replacing", "with_domain"]

NEEDS = {"adapt": "init", "finetune": "init", "distill": "guide"}
"""Recipes that need an encoder, and the setting that names it."""


def with_domain(rows: list[Derived], domain: str, channels: int) -> list[Derived]:
    """What a domain changes about the views, in the place of what the recipe says of them."""
    over = [Derived(f"views.{key}", value, f"domain {domain}") for key, value in domain_changes(domain, channels).items()]
    return replacing(rows, over)


def replacing(rows: list[Derived], over: list[Derived]) -> list[Derived]:
    """`rows` with others in the place of those of the same keys."""
    replaced = {row.key for row in over}
    return [*(row for row in rows if row.key not in replaced), *over]


def as_tree(rows: list[Derived]) -> dict[str, Any]:
    """`a.b` keys to nested dictionaries."""
    tree: dict[str, Any] = {}
    for row in rows:
        node = tree
        *parents, leaf = row.key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = row.value
    return tree
