"""What can be said of encoders without any label, and which images to label for a verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfsight import metrics, results, runs, statistics
from selfsight.comparison import assets
from selfsight.comparison.gather import About, Machine, costs, gather, load_all, record, write_bad
from selfsight.comparison.looking import Masks, eyes_of, measure, write_measured
from selfsight.comparison.plan import Plan
from selfsight.comparison.run import run_folders
from selfsight.comparison.split import TEST_SHARE
from selfsight.data.sources import Source, Subset
from selfsight.data.tolerance import listed
from selfsight.results import DataRecord, Labelling, Results

QUERIES = 8
NEIGHBOURS = 5
DISAGREEMENT = 0.2
DIFFERENCE = 5.0
_PICKS_SHOWN = 48


def run_labelfree(
    plan: Plan, source: Source, folder: Path, machine: Machine, about: About, masks: Masks | None = None
) -> Results:
    """Maps, neighbours, costs and curves of all encoders on unlabelled images, and what they look at against `masks`; no verdict
    but advice on labelling."""
    folder.mkdir(parents=True, exist_ok=True)
    encoders = load_all(plan.encoders, machine)
    eyes = eyes_of(encoders, machine) if masks is not None else {}
    unreadable = folder / "bad_images.jsonl"
    with listed(unreadable):
        found = gather(encoders, source, "unlabelled", machine)
        seen = None
        if masks is not None:
            seen = measure(eyes, Subset(source, found.indices), masks, machine, group_by=None, images=about.images)
    bad = write_bad(unreadable, [*found.bad, *(seen.bad if seen else [])])
    keys = [source.keys[i] for i in found.indices]
    reference = found.vectors[plan.incumbent]
    labelling, picks = _labelling(keys)
    shown_encoders = {e: found.vectors[e] for e in plan.encoders if e not in plan.floors} or found.vectors
    at = folder / "assets"
    chosen = np.sort(np.random.default_rng(0).permutation(len(keys))[: assets.MAP_POINTS])
    assets.write_map(at / "map.parquet", {e: v[chosen] for e, v in shown_encoders.items()}, [keys[i] for i in chosen], None, 0)
    shown = assets.write_neighbours(at / "neighbours.json", shown_encoders, keys, spread(reference, QUERIES), NEIGHBOURS)
    assets.write_curves(at / "curves.json", run_folders(plan.encoders))
    (at / "thumbs.parquet").unlink(missing_ok=True)
    if about.images:
        rows = [*shown, *picks[:_PICKS_SHOWN], *chosen]
        assets.write_thumbnails(at / "thumbs.parquet", source, [int(found.indices[i]) for i in rows])
    outcome = Results(
        title=about.title,
        encoders=[record(encoders[e], plan.role(e, None)) for e in plan.encoders],
        data=DataRecord(
            train=source.location, test=None, n_train=len(keys), n_test=0, classes=[], split="none: the images have no labels",
            bad_images=bad,
            notes=[*about.notes, *(f"effective rank of {e}: {metrics.rankme(v[:2000]):.1f}" for e, v in found.vectors.items())],
        ),
        plan=[f"incumbent: {plan.incumbent}", "no labels: no task can be scored and there is no verdict"],
        segmentation=seen.record(plan) if seen else None,
        scores=[], comparisons=[], verdict=None, labelling=labelling,
        cost=costs(plan.encoders, machine),
        provenance=runs.environment(),
    )  # fmt: skip
    write_measured(folder, seen)
    results.write(outcome, folder)
    return outcome


def _labelling(keys: list[str]) -> tuple[Labelling, list[int]]:
    """How many images to label, and which: a quarter of them will be test images, which set the number."""
    tests = statistics.needed_n(DISAGREEMENT, DIFFERENCE, 0.0)
    wanted = -(-int(tests / TEST_SHARE) // 10) * 10
    count = min(wanted, len(keys))
    # A fair sample, because the test images come from it; the neighbours shown are chosen to differ.
    picks = [int(i) for i in np.random.default_rng(0).permutation(len(keys))[:count]]
    short = f" There are only {len(keys)} images, so the verdict may stay undecided." if count < wanted else ""
    reason = (
        f"A quarter of the labelled images is held out for the test. If the two encoders disagree on {DISAGREEMENT:.0%} of the "
        f"images, {tests} test images settle a difference of {DIFFERENCE:g} points. The picks are a fair random sample, so that "
        f"accuracy on them is accuracy on your images; put each into a sub-folder named after its class.{short}"
    )
    return Labelling(count=count, picks=[keys[i] for i in picks], reason=reason), picks


def spread(vectors: npt.NDArray[np.float32], count: int) -> list[int]:
    """Indices of `count` samples that cover the features: farthest-first traversal from the sample nearest the mean.

    Greedy k-centre (Gonzalez 1985) in cosine distance: each next sample is the one farthest from all chosen so far.
    """
    unit = metrics.normalize(vectors)
    chosen = [int(np.argmax(unit @ unit.mean(0)))]
    closest = unit @ unit[chosen[0]]
    while len(chosen) < min(count, len(unit)):
        closest[chosen[-1]] = np.inf
        chosen.append(int(np.argmin(closest)))
        np.maximum(closest, unit @ unit[chosen[-1]], out=closest)
    return chosen
