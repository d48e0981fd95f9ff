"""Encoder specs: one line of text that names a frozen network.

::

    family/path?key=value&key=value
    timm/resnet50.a1_in1k      file/ours.ckpt?arch=resnet50&mean=.5,.5,.5      runs/birds      /tmp/out/run      pixels

What follows the family is its path: `file/a/b` is the relative path `a/b`, `file//a/b` the absolute `/a/b`. A run's path is the
whole text (`runs/birds` is the folder `birds` in `runs`), `runs//tmp/run` an absolute one; the bare path
of a run folder is a spec too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from selfsight.errors import WeightsError, nearest
from selfsight.runs import RunFolder

RUNS = "runs"
LOCAL = "local-dir:"
"""Before a path, timm's own word for a folder in the layout of its hub."""


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `text` is what the user wrote; every message about it begins with it."""

    text: str
    family: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    def number(self, key: str, default: int, least: int = 1) -> int:
        """The whole-number option `key`; `WeightsError` where it is none or below `least`."""
        value = self.options.get(key)
        if value is None:
            return default
        if not value.isdecimal() or int(value) < least:
            raise WeightsError(f"{self.text}: '{key}' must be a whole number from {least}, got '{value}'")
        return int(value)

    def choice(self, key: str, valid: tuple[str, ...]) -> str:
        """The option `key`, one of `valid`, whose first is the default."""
        value = self.options.get(key, valid[0])
        if value not in valid:
            raise WeightsError(f"{self.text}: '{key}' must be one of {', '.join(valid)}; got '{value}'")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """The option `key` as names separated by commas; empty where it is not given."""
        return tuple(name for name in self.options.get(key, "").split(",") if name)

    def file(self, expects: str) -> Path:
        """The path as an existing file."""
        path = Path(self.path)
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
            raise WeightsError(f"{self.text}: '{path}' {problem}; expected {expects}")
        return path

    @property
    def absolute(self) -> str:
        """The same spec from any folder: a path of the user's is spelt out."""
        local = LOCAL if self.family == "timm" and self.path.startswith(LOCAL) else ""
        here = bool(local) or (self.family == "hf" and Path(self.path).is_dir())
        if self.family not in (RUNS, "file", "onnx") and not here:
            return self.text
        _, question, tail = self.text.partition("?")
        return f"{self.family}/{local}{Path(self.path.removeprefix(local)).absolute()}{question}{tail}"


class Known(Protocol):
    """What is to be known of a family to read its specs."""

    @property
    def form(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...


def parse(text: str, families: Mapping[str, Known]) -> Spec:
    """The spec that `text` spells; a `WeightsError` names the family or option that would have been valid."""
    body, question, tail = text.partition("?")
    family, slash, path = body.partition("/")
    if family in families:
        path = _path(text, families[family], family, body, slash, path)
    elif RunFolder(body).exists:
        family, path = RUNS, body
    else:
        raise WeightsError(_unknown(text, body, family, families))
    options = _options(text, tail) if question else {}
    for key in options:
        if key not in families[family].options:
            hint = nearest(key, families[family].options)
            raise WeightsError(f"{text}: {families[family].form} has no option '{key}'. {hint}")
    return Spec(text, family, path, options)


def _path(text: str, known: Known, family: str, body: str, slash: str, path: str) -> str:
    takes_path = "/" in known.form
    if takes_path != bool(slash and path):
        what = "needs a path" if takes_path else "takes no path"
        raise WeightsError(f"{text}: {family} {what}; write {known.form}")
    # `runs/birds` is at once family and folder.
    return body if family == RUNS and not path.startswith("/") else path


def _options(text: str, tail: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in tail.split("&"):
        key, _, value = pair.partition("=")
        if not key or not value:
            raise WeightsError(f"{text}: '{pair}' after '?' is no option; write key=value&key=value, for example ?pool=mean")
        if key in options:
            raise WeightsError(f"{text}: option '{key}' is given twice")
        options[key] = value
    return options


def _unknown(text: str, body: str, family: str, families: Mapping[str, Known]) -> str:
    if Path(body).is_dir():
        return f"{text}: is a folder but no run (it holds no config.yaml)"
    if Path(body).is_file():
        return f"{text}: is a file; write {families['file'].form} for weights or {families['onnx'].form} for an ONNX network"
    forms = ", ".join(known.form for known in families.values())
    near = nearest(family, families)
    hint = f" {near}" if near.startswith("Did") else ""
    return f"{text}: no such encoder.{hint} Valid are: {forms}, or the path of a run folder."
