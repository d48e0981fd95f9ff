"""The drawn set of a comparison with the task `shift`: the data itself, another set, or one that is drawn first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfsight.api.synthesizing import read_spec, synth
from selfsight.api.watch import Watch
from selfsight.comparison.plan import SHIFT
from selfsight.comparison.refine import check_before
from selfsight.comparison.seen import refuse_seen
from selfsight.comparison.shift_set import TEST, TRAIN, ShiftSet, folder_of, located, open_set
from selfsight.errors import ConfigError, InputError
from selfsight.evaluate import USUAL
from selfsight.synthesis.sampler import counts
from selfsight.synthesis.spec import SynthSpec

COUNT = 1000
"""Pictures that train, where a spec is drawn for a comparison: a probe of ten classes has a hundred of each."""
DRAWN = "drawn"


@dataclass(frozen=True)
class Examination:
    """What was asked for: `folder` is where the set is, or will be where it is to be drawn by the spec `draws`. `apart` says that
    the verdict is of other images."""

    folder: Path
    apart: bool
    count: int
    seed: int
    draws: str | Path | SynthSpec | None = None

    @property
    def parts(self) -> tuple[str, str]:
        """(training, test) of the set as the data of a comparison."""
        return located(self.folder, TRAIN), located(self.folder, TEST)

    def made(self, watch: Watch) -> Examination:
        """The same with the set on the disk."""
        if self.draws is None:
            return self
        spec, _ = read_spec(self.draws)
        numbers = ", ".join(f"{split} {number}" for split, number in counts(spec, self.count).items())
        watch.say(f"drawing {spec.name} to {self.folder}: {numbers} (--shift-count {self.count})")
        synth(self.draws, self.folder, count=self.count, seed=self.seed, watch=watch)
        return replace(self, draws=None)


def tasks_of(tasks: Sequence[str] | None, data: str | Path | None, shift: object | None) -> list[str]:
    """Those asked for; a set or spec to shift by is asked to be used, and is all there is where there are no other images."""
    if shift is None:
        return list(tasks or USUAL)
    named = list(tasks) if tasks else [] if data is None else list(USUAL)
    return named if SHIFT in named else [*named, SHIFT]


def examination(
    data: str | Path | None,
    shift: str | Path | SynthSpec | None,
    tasks: Sequence[str],
    test: object | None,
    out: Path,
    count: int,
    seed: int,
) -> Examination | None:
    """What `tasks` ask for, None where shifts are not among them; `InputError` for what is wrong, before any work."""
    if data is None and shift is None:
        raise InputError("compare: expected DATA, or --shift with a drawn set or a spec to draw one")
    if SHIFT not in tasks:
        return None
    if count < 1:
        raise ConfigError(f"--shift-count: expected a whole number from 1, got {count}")
    apart = None not in (data, shift)
    if test is not None and not apart:
        raise ConfigError(f"--test {test}: the task shift tests on the split '{TEST}' of its set; leave --test out")
    if shift is None:
        assert data is not None
        return Examination(_checked(data), apart, count, seed)
    if isinstance(shift, SynthSpec) or not _is_set(shift):
        _check_splits(read_spec(shift)[0], "--shift" if isinstance(shift, SynthSpec) else f"--shift {shift}")
        return Examination(out / DRAWN, apart, count, seed, shift)
    return Examination(_checked(shift), apart, count, seed)


def opened(
    asked: Examination,
    encoders: Sequence[str],
    watch: Watch,
    *,
    limit: int | None,
    group_by: str | None,
    before: str | Path | None,
) -> ShiftSet:
    """The set, ready; `DataError` where it is none that can be examined, or an encoder has learnt the labels of its test."""
    folder = asked.made(watch).folder
    refuse_seen(encoders, located(folder, TEST))
    exam = open_set(folder, limit=limit, seed=asked.seed, group_by=None if asked.apart else group_by)
    if before is None:
        return exam
    check_before(before, exam, encoders)
    return replace(exam, before=str(before))


def _checked(place: str | Path) -> Path:
    """The folder of a set, once it has been looked at as a whole."""
    folder = folder_of(place)
    open_set(folder)
    return folder


def _is_set(place: str | Path) -> bool:
    return (Path(place) / "dataset.json").is_file() or Path(str(place).rpartition("?")[0], "dataset.json").is_file()


def _check_splits(spec: SynthSpec, where: str) -> None:
    for split in (TRAIN, TEST):
        if split not in spec.splits:
            raise ConfigError(f"{where}: splits: expected '{split}' among {', '.join(spec.splits)}; a comparison needs both")
    if spec.mixed:
        raise ConfigError(f"{where}: mixed: expected one class a picture, which a comparison needs")
    if not spec.shifts():
        raise ConfigError(f"{where}: shift: expected a factor that leaves what training shows; without one nothing is shifted")
