"""What may change when a run goes on, and what may not: that without which it would be another training.

The budget is the one change that moves the schedules: they go on where that much of the new budget is used, as if it had been
given from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfsight import config
from selfsight.errors import ConfigError, InputError
from selfsight.runs import RunFolder, append_jsonl, read_jsonl, write_text_atomic
from selfsight.ssl.clock import Clock
from selfsight.ssl.settings import TrainSettings, check

BUDGET = ("epochs", "minutes")
MAY_CHANGE = (
    *BUDGET,
    *("device", "precision", "compile", "threads", "workers", "parts", "strategy"),
    *("log_every", "probe_every_epochs", "save_every_minutes", "collapse_window"),
    *("tolerance.strict", "tolerance.max_bad"),
    "finetune.patience",
)
"""How long, on what, and what is looked at. `parts` divides a batch, whose mean gradient is the same."""

_WHY = {
    "recipe": "it made all other settings",
    "domain": "it says how views are changed",
    "data": "other images are another training; where the same ones have moved, say so in config.yaml",
    "images": "other images are another training",
    "limit": "other images are another training",
    "init": "it is where the run began",
    "guide": "it is what the student follows",
    "seed": "the order of the images is drawn from it",
    "batch_size": "the order of the images and the schedules are counted in batches; to save memory raise parts",
    "teacher_momentum": "the teacher is a mean of students over it",
    "final_teacher_momentum": "the teacher is a mean of students over it",
    "backbone": "the weights are those of this network",
    "objective": "heads and centre belong to it",
    "views": "it is what the network learns from",
    "finetune": "it says what learns, and what it is judged by",
    "optimizer": "its moments were gathered with it",
}
_OPTIONS = {"backbone.name": "--backbone", "views.read.channels": "--channels", "views.read.max_pixels": "--max-pixels"}
_NAMED = (*BUDGET, "recipe", "domain", "init", "guide", "seed", "limit", "device")


def continued(settings: TrainSettings, over: Mapping[str, Any], folder: RunFolder) -> TrainSettings:
    """The settings of a run with `over` laid on them, to go on with; `ConfigError` names what may not change, and why.

    A value that the run has already is no change. A budget of one kind takes the place of the other kind.
    """
    over = dict(over)
    for key, other in (BUDGET, BUDGET[::-1]):
        if over.get(key) is not None:
            over.setdefault(other, None)
    before = settings.model_dump(mode="json")
    try:
        changed = config.build(TrainSettings, config.merge(before, over), "settings")
    except ConfigError:
        # What may not change may also not go together with the rest: then that it may not change is the thing to say.
        for key, old in _leaves(before):
            new = _at(over, key)
            if new is not None and new != old and key not in MAY_CHANGE:
                raise _kept(key, old, folder) from None
        raise
    for key, old, _ in differences(settings, changed):
        if key not in MAY_CHANGE:
            raise _kept(key, old, folder)
    check(changed)
    if budget(settings) != budget(changed):
        _check_left(changed, folder)
    return changed


def _kept(key: str, value: Any, folder: RunFolder) -> ConfigError:
    why = _WHY.get(key.split(".")[0], "the run would be another one")
    return ConfigError(
        f"{_option(key)}: a resumed run keeps it as it is ({value}), because {why}; leave it out, or start a new run with "
        f"another --out (--init {folder.path} begins with this one's weights)"
    )


def record(settings: TrainSettings, changed: TrainSettings, folder: RunFolder) -> str | None:
    """Write the change to `changes.jsonl` and `config.yaml`; says in one line what is different, None where nothing is."""
    found = list(differences(settings, changed))
    if not found:
        return None
    step, elapsed = reached(folder)
    append_jsonl(folder.changes, [{"step": step, "changes": {key: [old, new] for key, old, new in found}}])
    write_text_atomic(folder.config, config.dump(changed))
    said = "changed: " + ", ".join(f"{key} {old} -> {new}" for key, old, new in found)
    if budget(settings) == budget(changed):
        return said
    was, now = (_clock(s, elapsed).progress(step) for s in (settings, changed))
    return f"{said}. The schedules go on at {now:.0%} of the run, it was at {was:.0%}"


def differences(a: TrainSettings, b: TrainSettings) -> Iterator[tuple[str, Any, Any]]:
    """`key.sub`, value in `a`, value in `b` of all settings that differ."""
    yield from _differing(a.model_dump(mode="json"), b.model_dump(mode="json"), "")


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for key in [*a, *(key for key in b if key not in a)]:
        old, new = a.get(key), b.get(key)
        if prefix + key != "data" and isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key, old, new


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _at(tree: Any, key: str) -> Any:
    """What stands at `key.sub`, None where nothing does."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def reached(folder: RunFolder) -> tuple[int, float]:
    """The last step that was logged, and the seconds trained until then."""
    row: dict[str, Any] = next((row for row in reversed(read_jsonl(folder.metrics)) if "loss" in row), {})
    return int(row.get("step", 0)), float(row.get("elapsed_s", 0.0))


def budget(settings: TrainSettings) -> tuple[float | None, float | None]:
    return settings.epochs, settings.minutes


def _check_left(settings: TrainSettings, folder: RunFolder) -> None:
    step, elapsed = reached(folder)
    if _clock(settings, elapsed).finished(step):
        name, done = ("epochs", step / settings.steps_per_epoch) if settings.minutes is None else ("minutes", elapsed / 60)
        wanted = getattr(settings, name)
        raise InputError(f"--{name} {wanted:g}: counts from the start of the run, which has done {done:.3g} already; give more")


def _clock(settings: TrainSettings, elapsed: float) -> Clock:
    return Clock(settings.epochs, settings.minutes, settings.steps_per_epoch, elapsed)


def _option(key: str) -> str:
    return f"--{key}" if key in _NAMED else _OPTIONS.get(key, key)
