"""The verbs as functions. This room composes the others: it alone hands a k-NN probe to a training or a report to a comparison.

Argument names are those of the command line.
"""

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
