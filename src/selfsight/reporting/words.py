"""Numbers and names as a reader meets them: labels of tasks and metrics, the verdict in one sentence."""

from __future__ import annotations

import math
import re

from selfsight.results import MaskScore, Results, Score, SliceScore, Verdict

MINUS, NONE, NBSP = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
TASKS = {
    "knn": "k-NN", "linear": "linear", "finetune": "fine-tuned", "fewlabels": "few labels", "retrieval": "retrieval",
    "labelfree": "label-free", "shift": "shift",
}  # fmt: skip
METRICS = {
    "top1": "top-1", "top5": "top-5", "balanced_accuracy": "balanced accuracy", "rankme": "RankMe", "map": "mAP", "miou": "mIoU",
    "jaccard_60": "Jaccard at 60 %", "jaccard_80": "Jaccard at 80 %", "corloc": "CorLoc",
}  # fmt: skip
METHODS = {
    "": "own map", "attention": "attention", "norm": "norm of the features", "principal": "first principal component",
    "heads": "best head", "lost": "LOST", "tokencut": "TokenCut", "kmeans": "k-means",
}  # fmt: skip
CURVES = {
    "loss": ("Loss", "falls while the student learns"),
    "loss_over_chance": ("Loss as a share of chance", "1 is a teacher that answers alike for every image: nothing learned yet"),
    "knn_top1": ("k-NN top-1 (%)", "the one curve that measures use; it should climb"),
    "teacher_entropy": ("Teacher entropy", "falls as the teacher commits; zero, or no fall at all, is collapse"),
    "rankme": ("RankMe", "how many dimensions the features use; a sharp drop is collapse"),
    "lr": ("Learning rate", "warm-up, then decay"),
}


def task_name(task: str) -> str:
    return TASKS.get(task, task.replace("_", " "))


def metric_name(metric: str) -> str:
    """`top1_k5` -> `top-1, k = 5`; unknown names lose their underscores."""
    match = re.fullmatch(r"(.+)_k(\d+)", metric)
    if match:
        return f"{metric_name(match[1])}, k{NBSP}={NBSP}{match[2]}"
    return METRICS.get(metric, metric.replace("_", " "))


def method_name(method: str) -> str:
    return METHODS.get(method, method.replace("_", " "))


def score_name(task: str, metric: str, condition: str = "clean") -> str:
    name = f"{task_name(task)} {metric_name(metric)}"
    return name if condition == "clean" else f"{name} ({condition})"


def endpoint(results: Results) -> tuple[str, str, str] | None:
    """The (task, metric, condition) that the verdict rests on; without a verdict, or an unknown one, the best guess."""
    pairs = dict.fromkeys((s.task, s.metric, s.condition) for s in results.scores)
    if results.verdict is not None:
        wanted = set(re.split(r"[\s/:.,@()]+", results.verdict.endpoint.lower()))
        for task, metric, condition in sorted(pairs, key=lambda pair: pair[2] != "clean"):
            if {task.lower(), metric.lower()} <= wanted and (condition == "clean" or condition.lower() in wanted):
                return task, metric, condition
    top1 = [pair for pair in pairs if pair[1].startswith("top1") and pair[2] == "clean"]
    linear = [pair for pair in top1 if pair[0] == "linear"]
    return next(iter([*linear, *top1]), None)


def endpoint_name(results: Results) -> str:
    found = endpoint(results)
    if found is None:
        return results.verdict.endpoint if results.verdict else ""
    return score_name(*found)


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus sign and thousands set apart."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return text.replace("-", "") if float(f"{value:.{digits}f}") == 0 else text.replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    text = number(value, digits)
    return f"+{text}" if float(f"{value:.{digits}f}") > 0 else text


def p_value(p: float) -> str:
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: float) -> str:
    """Parameters and the like: 4.7 M, 86 M, 620 k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f} {unit}"
    return f"{value:.0f}"


def interval(score: Score | MaskScore | SliceScore) -> str:
    return f"{number(score.low)} to {number(score.high)}"


def points(value: float) -> str:
    return f"{number(value)} point{'' if abs(value) == 1 else 's'}"


def verdict_sentence(results: Results, verdict: Verdict, n: int) -> str:
    """`Keep efficientnet-lite0: runs/demo is 21.4 points worse in linear top-1 (95 % interval ..., 600 test images).`"""
    size = f"{points(abs(verdict.difference))} {'better' if verdict.difference > 0 else 'worse'}"
    if abs(verdict.difference) < 0.05:
        size = "as good"
    head = {
        "replace": f"Replace {verdict.incumbent} by {verdict.challenger}: the new encoder is",
        "keep": f"Keep {verdict.incumbent}: {verdict.challenger} is",
        "undecided": f"Undecided: {verdict.challenger} measures",
    }[verdict.decision]
    against = f" than {verdict.incumbent}" if verdict.decision == "undecided" and size != "as good" else ""
    bounds = f"95 % interval {signed(verdict.low)} to {signed(verdict.high)}, {number(n, 0)} test images"
    return f"{head} {size}{against} in {endpoint_name(results)} ({bounds})."
