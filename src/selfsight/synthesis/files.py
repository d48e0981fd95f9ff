"""What a spec names, looked up: built-in names stay, files are found relative to the spec, folders become the files in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfsight.errors import ConfigError, DataError, nearest
from selfsight.synthesis.backends.base import Backend
from selfsight.synthesis.distributions import Choice, Mixture, Spread
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.spec import OTHERS, ClassSpec, RenderSettings, SynthSpec


def resolved(spec: SynthSpec, backend: Backend, where: str) -> SynthSpec:
    """The spec with every folder as its files, by paths relative to `backend.base`.

    `DataError` for what is not there, `ConfigError` for a factor that the backend does not draw, and settings that it has not.
    """
    _check_factors(spec, backend, where)
    if not backend.renders and spec.render != RenderSettings():
        why = f"the backend {backend.name} renders nothing, so that these settings mean nothing to it"
        raise ConfigError(f"{where}: render: {why}; leave them out, or take the backend blender")
    look = _Look(backend, where)
    shift_assets = {
        split: {name: look.names("asset", assets, f"shift_assets.{split}.{name}") for name, assets in by_class.items()}
        for split, by_class in spec.shift_assets.items()
    }
    return spec.model_copy(
        update={
            "backend": backend.name,
            "classes": {name: look.of_class(given, name) for name, given in spec.classes.items()},
            "distractors": look.names("asset", spec.distractors, "distractors") or backend.distractors,
            "factors": look.factors(spec.factors, "factors"),
            "training": look.factors(spec.training, "training"),
            "shift": {factor: look.levels(factor, levels) for factor, levels in spec.shift.items()},
            "shift_assets": shift_assets,
        }
    )


def _check_factors(spec: SynthSpec, backend: Backend, where: str) -> None:
    named = [("factors", list(spec.factors)), ("training", list(spec.training)), ("shift", list(spec.shift))]
    named += [("sequence.motion", list(spec.motion))]
    for name, given in spec.classes.items():
        named += [(f"classes.{name}.factors", list(given.factors)), (f"classes.{name}.training", list(given.training))]
    for group, factors in named:
        for factor in factors:
            if factor not in backend.factors:
                known = ", ".join(name for name in FACTORS if name in backend.factors)
                raise ConfigError(f"{where}: {group}.{factor}: the backend {backend.name} does not draw it; it draws {known}")


class _Look:
    def __init__(self, backend: Backend, where: str) -> None:
        self.backend, self.where = backend, where

    def of_class(self, given: ClassSpec, name: str) -> ClassSpec:
        assets = self.names("asset", given.assets, f"classes.{name}.assets")
        at = f"classes.{name}"
        factors, training = self.factors(given.factors, f"{at}.factors"), self.factors(given.training, f"{at}.training")
        return ClassSpec(assets=assets, factors=factors, training=training)

    def levels(self, factor: str, levels: dict[str, Spread | str]) -> dict[str, Spread | str]:
        found: dict[str, Spread | str] = {}
        for level, there in levels.items():
            at = ".".join(["shift", factor, *([level] if level else [])])
            found[level] = OTHERS if isinstance(there, str) else self.spread(factor, there, at)
        return found

    def factors(self, factors: dict[str, Spread], at: str) -> dict[str, Spread]:
        return {factor: self.spread(factor, given, f"{at}.{factor}") for factor, given in factors.items()}

    def spread(self, factor: str, given: Spread, at: str) -> Spread:
        """A folder has the weight that its name had, whatever the number of files in it."""
        if FACTORS[factor].kind != "name":
            return given
        if isinstance(given, Mixture):
            return given.model_copy(update={"mixture": tuple(self.spread(factor, part, at) for part in given.mixture)})
        weights = given.weights if isinstance(given, Choice) else None
        found: dict[str, float] = {}
        for number, value in enumerate(given.span()):
            names = self.names(factor, (str(value),), at)
            for name in names:
                found[name] = found.get(name, 0) + (weights[number] if weights else 1) / len(names)
        if list(found) == given.span():
            return given
        even = len(set(found.values())) == 1
        return Choice(choice=tuple(found), weights=None if even else tuple(found.values()))

    def names(self, factor: str, given: tuple[str, ...], at: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in given for name in self._one(factor, one, at)))

    def _one(self, factor: str, name: str, at: str) -> Iterator[str]:
        built_in, suffixes = self.backend.built_in.get(factor, ()), self.backend.suffixes.get(factor, ())
        path = self.backend.base / name
        if name in built_in:
            yield name
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
            if not files:
                raise DataError(f"{self.where}: {at}: {path}: holds no file that ends in {' or '.join(suffixes)}")
            yield from (self._relative(file) for file in files)
        elif path.is_file():
            if path.suffix.lower() not in suffixes:
                raise DataError(f"{self.where}: {at}: {path}: expected a file that ends in {' or '.join(suffixes) or 'nothing'}")
            yield self._relative(path)
        else:
            why = f"there is no file {path}, and nothing built in is '{name}'"
            raise DataError(f"{self.where}: {at}: {why}. {nearest(name, built_in)}")

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.backend.base).as_posix() if file.is_relative_to(self.backend.base) else str(file)
