"""Replace, keep, or not yet decided."""

from __future__ import annotations

from selfsight import statistics
from selfsight.results import Comparison, Cost, Decision, Verdict

CHEAPER = 1.2
"""A challenger counts as cheaper if it encodes this many times the images a second, or has this many times fewer parameters."""

_LEAST = 0.05
"""Points below which nobody would collect images to settle a difference."""

RULE = (
    "replace if the whole 95 % interval of the difference lies above 0, or above minus the margin with a challenger that is at "
    "least 20 % faster or smaller as measured; keep if it lies below 0; else undecided"
)


def decide(pair: Comparison, incumbent: Cost, challenger: Cost, margin: float) -> Verdict:
    """The verdict on one paired comparison `b` (challenger) minus `a` (incumbent); margin in points."""
    cheaper = _cheaper(incumbent, challenger)
    needed = None
    decision: Decision
    if pair.low > 0:
        decision, reason = "replace", "the whole interval of the difference lies above zero"
    elif cheaper and pair.low > -margin:
        decision, reason = "replace", f"it is at most {margin:g} points worse, and {cheaper}"
    elif pair.high < 0:
        decision, reason = "keep", "the whole interval of the difference lies below zero"
    else:
        decision = "undecided"
        disagreement = (pair.only_a + pair.only_b) / pair.n
        needed = statistics.needed_n(disagreement, pair.difference, margin)
        if needed <= pair.n:
            # A difference of the margin would show by now; what is left to settle is the difference itself.
            needed = max(pair.n + 1, statistics.needed_n(disagreement, max(abs(pair.difference), _LEAST), 0.0))
        reason = "the interval of the difference holds zero"
    return Verdict(
        decision=decision,
        incumbent=pair.a,
        challenger=pair.b,
        endpoint=f"{pair.task} {pair.metric}",
        margin=margin,
        difference=pair.difference,
        low=pair.low,
        high=pair.high,
        reason=reason,
        needed_n=needed,
    )


def _cheaper(incumbent: Cost, challenger: Cost) -> str:
    """How the challenger is cheaper, in words; empty if it is not."""
    if challenger.images_per_second >= CHEAPER * incumbent.images_per_second:
        return f"it encodes {challenger.images_per_second / incumbent.images_per_second:.1f} times as many images a second"
    if 0 < CHEAPER * challenger.parameters <= incumbent.parameters:
        return f"it has {incumbent.parameters / challenger.parameters:.1f} times fewer parameters"
    return ""


def sentence(verdict: Verdict, n: int) -> str:
    """The verdict in one line for the terminal."""
    v = verdict
    interval = f"{v.difference:+.1f} points in {v.endpoint} (95 % interval {v.low:+.1f} to {v.high:+.1f}, {n} test images)"
    if v.decision == "replace":
        return f"replace: {v.challenger} instead of {v.incumbent}: {interval}; {v.reason}"
    if v.decision == "keep":
        return f"keep: {v.incumbent}; {v.challenger} differs by {interval}; {v.reason}"
    return f"undecided between {v.incumbent} and {v.challenger}: {interval}; about {v.needed_n} test images would settle it"
