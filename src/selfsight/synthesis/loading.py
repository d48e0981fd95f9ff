"""A spec out of its file, and what is wrong with it before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfsight.config import load
from selfsight.errors import ConfigError, nearest
from selfsight.synthesis.distributions import Integers, Spread, Value, leaves, shown
from selfsight.synthesis.factors import FACTORS, Factor
from selfsight.synthesis.spec import OTHERS, SynthSpec


def load_spec(path: Path | str) -> SynthSpec:
    """The spec in a YAML file; `ConfigError` where it is none. Its files are not looked at yet."""
    return checked(load(SynthSpec, path), str(path))


def checked(spec: SynthSpec, where: str) -> SynthSpec:
    """The spec itself; `ConfigError` for a factor that is none, a range that cannot be, and a shift that does not leave it."""
    for group, factors in (("factors", spec.factors), ("training", spec.training)):
        for factor, given in factors.items():
            _check_factor(factor, given, f"{where}: {group}.{factor}")
    for name, about in spec.classes.items():
        own = [(f"factors.{factor}", factor, given) for factor, given in about.factors.items()]
        own += [(f"training.{factor}", factor, given) for factor, given in about.training.items()]
        for place, factor, given in own:
            at = f"{where}: classes.{name}.{place}"
            _check_factor(factor, given, at)
            if FACTORS[factor].of == "picture":
                raise ConfigError(f"{at}: is a factor of the whole picture; give it in 'factors'")
    for factor, step in spec.motion.items():
        _check_motion(spec, factor, step, f"{where}: sequence.motion.{factor}")
    for split, (factor, there) in spec.shifts().items():
        if factor == "asset":
            _check_assets(spec, there, f"{where}: {split.replace('shift.asset', 'shift_assets')}")
        else:
            _check_shift(spec, factor, there, f"{where}: {split}")
    return spec


def _check_factor(factor: str, given: Spread, at: str) -> None:
    if factor not in FACTORS:
        raise ConfigError(f"{at}: there is no such factor. {nearest(factor, FACTORS)}")
    if factor == "asset":
        raise ConfigError(f"{at}: assets are given by class; write classes.NAME.assets, or shift_assets for a shift")
    known = FACTORS[factor]
    for part in given.parts():
        for value in part.span():
            if not _possible(known, value, part.discrete or isinstance(part, Integers)):
                raise ConfigError(f"{at}: expected {_wanted(known)}, got {shown(value)}; {factor}: {known.says}")


def _check_motion(spec: SynthSpec, factor: str, step: Spread, at: str) -> None:
    if factor not in FACTORS:
        raise ConfigError(f"{at}: there is no such factor. {nearest(factor, FACTORS)}")
    if FACTORS[factor].kind != "number":
        raise ConfigError(f"{at}: expected a factor of numbers, which can grow by a little, such as x or rotation")
    if any(isinstance(value, str) for value in step.span()):
        raise ConfigError(f"{at}: expected numbers by which {factor} grows from picture to picture, got {step.text()}")
    drops = [spec.ways("drop"), spec.in_training("drop"), [there for of, there in spec.shifts().values() if of == "drop"]]
    if FACTORS[factor].of == "object" and any(way.span() != [0] for ways in drops for way in ways):
        raise ConfigError(f"{at}: what drops lies where it fell; move the camera or the light, or leave 'drop' at 0")


def _wanted(factor: Factor) -> str:
    if factor.kind == "name":
        return "names or files"
    return f"{'whole numbers' if factor.kind == 'whole' else 'numbers'} from {factor.low:g} to {factor.high:g}"


def _possible(factor: Factor, value: Value, single: bool) -> bool:
    """Whether a factor can have the value; `single` is False of a spread that takes all values between two."""
    if factor.low is None or factor.high is None:
        return isinstance(value, str)
    if isinstance(value, (str, bool)):
        return False
    whole = factor.kind != "whole" or (single and isinstance(value, int))
    return whole and factor.low <= value <= factor.high


def _check_shift(spec: SynthSpec, factor: str, there: Any, at: str) -> None:
    if there == OTHERS:
        if factor not in FACTORS or FACTORS[factor].of == "picture" or len(spec.ways(factor)) < 2:
            raise ConfigError(f"{at}: 'others' needs a factor of objects that classes.NAME.factors spreads by class")
        return
    _check_factor(factor, there, at)
    here = spec.ways(factor)  # `training` may cover a shift that was found to hurt
    if not leaves(there, here):
        ranges = "; ".join(way.text() for way in here)
        raise ConfigError(f"{at}: {there.text()} lies within what training shows ({ranges}); a shift leaves it")


def _check_assets(spec: SynthSpec, there: Mapping[str, tuple[str, ...]], at: str) -> None:
    if set(there) != set(spec.classes):
        raise ConfigError(
            f"{at}: expected assets of each of {', '.join(spec.classes)}, got those of {', '.join(there) or 'none'}"
        )
    known = [name for name, assets in there.items() if set(assets) <= set(spec.classes[name].assets)]
    if known:
        raise ConfigError(f"{at}.{known[0]}: has only assets that training shows, too; a shift leaves them")
