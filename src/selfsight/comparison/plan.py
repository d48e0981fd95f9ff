"""What a comparison will do, settled before any feature is computed and printed with the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfsight.comparison.verdict import RULE
from selfsight.encoders import Spec, parse_spec
from selfsight.errors import ConfigError, nearest
from selfsight.evaluate import TASKS, ImageTask, Task
from selfsight.results import Role

SEGMENTATION, SHIFT = "segmentation", "shift"


@dataclass(frozen=True)
class Plan:
    """Encoders in the order given, the tasks and the rule. `floors` are the encoders that learned nothing; `on_images` are tasks
    by name that train networks themselves. `segmentation` is asked for beside the tasks: it needs masks in place of labels. So is
    `shift`, which needs a drawn set; it is among the tasks, too, where that set is what the verdict is of."""

    encoders: tuple[str, ...]
    incumbent: str
    floors: frozenset[str]
    tasks: tuple[str, ...]
    endpoint: str
    margin: float
    seeds: tuple[int, ...]
    on_images: Mapping[str, ImageTask] = field(default_factory=dict)
    segmentation: bool = False
    shift: bool = False

    @property
    def others(self) -> list[str]:
        return [e for e in self.encoders if e != self.incumbent]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is compared in each task: the incumbent with each other encoder, and each run with its own untrained copy."""
        copies = [(floor, e) for e in self.encoders for floor in self.floors if floor == f"{e}?weights=init"]
        return [(self.incumbent, other) for other in self.others] + [pair for pair in copies if self.incumbent not in pair]

    def seeds_of(self, task: str) -> tuple[int, ...]:
        """A task that draws nothing runs once."""
        return self.seeds if _kind(task, self.on_images).random else self.seeds[:1]

    @property
    def primary(self) -> dict[str, str]:
        """The metric of each task that takes part in the declared family."""
        return {task: _kind(task, self.on_images).primary for task in self.tasks}

    def challenger(self, endpoint_scores: dict[str, float]) -> str:
        """The best other encoder at the endpoint that is no floor; the best floor where there are only floors."""
        candidates = [e for e in self.others if e not in self.floors] or self.others
        return max(candidates, key=lambda e: endpoint_scores[e])

    def role(self, encoder: str, challenger: str | None) -> Role:
        if encoder == self.incumbent:
            return "incumbent"
        if encoder == challenger:
            return "challenger"
        return "floor" if encoder in self.floors else "other"

    def lines(self) -> list[str]:
        """The plan in words."""
        seeds = "seed " + ", ".join(map(str, self.seeds))
        beside = ["segmentation: against masks, beside floors that look at nothing; no part of the verdict"]
        exam = ["shift: a drawn set and its splits in which one factor is another; only its clean pictures may be the endpoint"]
        return [
            f"incumbent: {self.incumbent}",
            "challenger: the best other encoder at the endpoint that is no floor (the best floor where there are only floors)",
            f"endpoint: {self.endpoint} {self.primary[self.endpoint]}",
            f"Rule with a margin of {self.margin:g} points: {RULE}",
            f"tasks: {', '.join(self.tasks)}; tasks that draw at random run under {seeds}",
            "intervals: percentile bootstrap, 10,000 resamples, 95 %; p: exact McNemar (of the first seed), by Holm over "
            f"{len(self.pairs) * len(self.tasks)} comparisons: the incumbent with each other encoder, and each run with its own "
            "untrained copy, in " + " and ".join(f"{t} {self.primary[t]}" for t in self.tasks),
            *(beside if self.segmentation else []),
            *(exam if self.shift else []),
            "no setting is tuned on test images",
        ]


def _kind(task: str, on_images: Mapping[str, ImageTask]) -> type[Task] | ImageTask:
    return on_images[task] if task in on_images else TASKS[task]


def make_plan(
    encoders: Sequence[str],
    incumbent: str | None,
    tasks: Sequence[str],
    margin: float,
    seeds: int,
    seed: int,
    on_images: Mapping[str, ImageTask] | None = None,
    shift_apart: bool = False,
) -> Plan:
    """Check what was asked for and fill in the defaults. `shift_apart` says that shifts are of another set than the verdict."""
    known = [*TASKS, *(on_images or {}), SEGMENTATION]
    beside = {SEGMENTATION, SHIFT} if shift_apart else {SEGMENTATION}
    scored = tuple(dict.fromkeys(task for task in tasks if task not in beside))
    if len(encoders) < 2:
        raise ConfigError(f"--encoder: a comparison needs at least two encoders, got {len(encoders)}; the first is the incumbent")
    if len(set(encoders)) < len(encoders):
        raise ConfigError("--encoder: the same encoder is given twice")
    specs = {text: parse_spec(text) for text in encoders}
    first = incumbent or encoders[0]
    if first not in specs:
        raise ConfigError(f"--incumbent {first!r}: is not among the encoders. {nearest(first, encoders)}")
    for task in tasks:
        if task not in known:
            raise ConfigError(f"--tasks: no task '{task}'. {nearest(task, known)}")
    if not tasks:
        raise ConfigError(f"--tasks: expected at least one of {', '.join(known)}")
    if seeds < 1:
        raise ConfigError(f"--seeds: expected a whole number from 1, got {seeds}")
    if not margin >= 0:
        raise ConfigError(f"--margin: expected points from 0, got {margin:g}")
    return Plan(
        encoders=tuple(encoders),
        incumbent=first,
        floors=frozenset(text for text, spec in specs.items() if is_floor(spec)),
        tasks=scored,
        endpoint="linear" if "linear" in scored else next(iter(scored), ""),
        margin=margin,
        seeds=tuple(range(seed, seed + seeds)),
        on_images=on_images or {},
        segmentation=SEGMENTATION in tasks,
        shift=SHIFT in tasks,
    )


def is_floor(spec: Spec) -> bool:
    """Encoders that learned nothing: raw pixels, random weights, a run before its first step."""
    return spec.family in ("pixels", "random") or spec.options.get("weights") == "init"
