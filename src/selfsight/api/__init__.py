"""The verbs as functions. This room composes the others: it alone hands a k-NN probe to a training or a report to a comparison.

Argument names are those of the command line. Each verb is loaded on first use: a training does not wait for what draws reports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsight.api.attending import attend
    from selfsight.api.comparing import compare, report
    from selfsight.api.embedding import embed
    from selfsight.api.exporting import export
    from selfsight.api.finding import objects
    from selfsight.api.finetuning import finetune
    from selfsight.api.predicting import predict
    from selfsight.api.propagating import propagate
    from selfsight.api.refining import refine
    from selfsight.api.searching import duplicates, search
    from selfsight.api.synthesizing import read_spec, synth
    from selfsight.api.training import resume, train
    from selfsight.api.viewing import views
    from selfsight.api.watch import Silent, Watch
    from selfsight.cluster import submit

_HOMES = {
    "Silent": "selfsight.api.watch",
    "Watch": "selfsight.api.watch",
    "attend": "selfsight.api.attending",
    "compare": "selfsight.api.comparing",
    "duplicates": "selfsight.api.searching",
    "embed": "selfsight.api.embedding",
    "export": "selfsight.api.exporting",
    "finetune": "selfsight.api.finetuning",
    "objects": "selfsight.api.finding",
    "predict": "selfsight.api.predicting",
    "propagate": "selfsight.api.propagating",
    "read_spec": "selfsight.api.synthesizing",
    "refine": "selfsight.api.refining",
    "report": "selfsight.api.comparing",
    "resume": "selfsight.api.training",
    "search": "selfsight.api.searching",
    "submit": "selfsight.cluster",
    "synth": "selfsight.api.synthesizing",
    "train": "selfsight.api.training",
    "views": "selfsight.api.viewing",
}

__all__ = [
    "Silent",
    "Watch",
    "attend",
    "compare",
    "duplicates",
    "embed",
    "export",
    "finetune",
    "objects",
    "predict",
    "propagate",
    "read_spec",
    "refine",
    "report",
    "resume",
    "search",
    "submit",
    "synth",
    "train",
    "views",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfsight.api' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found
