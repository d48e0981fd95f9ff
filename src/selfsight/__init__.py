"""selfsight: should a self-supervised Vision Transformer replace your CNN? Evidence on your own images.

The verbs of the command line are functions here, with the same argument names. They are loaded on first use, so that
`import selfsight` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from selfsight.api import (
        attend,
        compare,
        duplicates,
        embed,
        export,
        finetune,
        objects,
        predict,
        propagate,
        refine,
        report,
        resume,
        search,
        synth,
        train,
        views,
    )
    from selfsight.checkup import doctor
    from selfsight.encoders import load_encoder
    from selfsight.explorer import explore
    from selfsight.walkthrough import demo

_HOMES = {
    "attend": "selfsight.api",
    "compare": "selfsight.api",
    "demo": "selfsight.walkthrough",
    "doctor": "selfsight.checkup",
    "duplicates": "selfsight.api",
    "embed": "selfsight.api",
    "explore": "selfsight.explorer",
    "export": "selfsight.api",
    "finetune": "selfsight.api",
    "load_encoder": "selfsight.encoders",
    "objects": "selfsight.api",
    "predict": "selfsight.api",
    "propagate": "selfsight.api",
    "refine": "selfsight.api",
    "report": "selfsight.api",
    "resume": "selfsight.api",
    "search": "selfsight.api",
    "synth": "selfsight.api",
    "train": "selfsight.api",
    "views": "selfsight.api",
}

__all__ = [
    "__version__",
    "attend",
    "compare",
    "demo",
    "doctor",
    "duplicates",
    "embed",
    "explore",
    "export",
    "finetune",
    "load_encoder",
    "objects",
    "predict",
    "propagate",
    "refine",
    "report",
    "resume",
    "search",
    "synth",
    "train",
    "views",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfsight' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
