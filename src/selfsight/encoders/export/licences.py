"""Where an encoder's weights come from, and under which licence they may be passed on, as far as that is known.

A run hands on what it began with (`init`) and what it was taught by (`guide`). Nothing here is legal advice; what is not known
is said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selfsight.encoders import architecture, parse_spec
from selfsight.encoders.spec import LOCAL, RUNS, Spec
from selfsight.errors import WeightsError
from selfsight.runs import RunFolder

UNKNOWN, DINOV3, AGPL = "unknown", "dinov3-license", "agpl-3.0"
OWN = ""
"""Weights drawn at random: nobody else's."""

_FAMILIES = {"random": OWN, "pixels": OWN, "efficientnet-lite0": "apache-2.0"}
_LIST = [
    ("facebook/dinov3", DINOV3),
    ("facebook/dinov2", "apache-2.0"),
    ("facebook/dino-", "apache-2.0"),
    ("google/vit-", "apache-2.0"),
    ("microsoft/resnet-", "apache-2.0"),
]
"""Repositories of the model hub, by how their names begin."""

_MARKS = {b"lightly_train": AGPL, b"lightly-train": AGPL, b"ultralytics": AGPL, b"AGPL": AGPL}
"""What trainers under the AGPL leave in a checkpoint."""
_HEAD = 4 * 2**20

_REMARKS = {
    UNKNOWN: "their licence is not known here; find it out before you pass them on",
    DINOV3: "they are under Meta's own DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/), "
    "which binds what is made from them too: it must go along with every copy and limits what they may be used for",
    AGPL: "they were trained by code under the AGPL-3.0, whose owners ask for another licence where products use such weights",
}
_FREE = (OWN, "apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")
"""Licences that ask for no more than that they be named."""


class Origin(NamedTuple):
    """One set of weights that had a part in an encoder: `part` is what it did, `remark` what to know of its licence."""

    source: str
    part: str
    licence: str
    remark: str

    @property
    def flagged(self) -> bool:
        """Whether whoever passes the weights on must do something first."""
        return self.remark != ""


def origins(spec: Spec, part: str = "the weights", seen: frozenset[str] = frozenset()) -> Iterator[Origin]:
    """All that had a part in an encoder, itself first."""
    if spec.family == RUNS:
        yield from _of_run(spec, part, seen)
    else:
        yield from (_origin(_named(spec), part, licence) for licence in _licences(spec))


def overall(found: list[Origin]) -> str:
    """One word for the head of a model card: unknown where any part is, `other` where several or a special one bind."""
    licences = {origin.licence for origin in found} - {OWN}
    if not licences or UNKNOWN in licences:
        return UNKNOWN if licences else OWN
    return licences.pop() if len(licences) == 1 else "other"


def _origin(source: str, part: str, licence: str) -> Origin:
    own_terms = "" if licence in _FREE else f"their licence, {licence}, has terms of its own; read it before you pass them on"
    return Origin(source, part, licence, _REMARKS.get(licence, own_terms))


def _named(spec: Spec) -> str:
    """The spec without the folders of this machine."""
    if spec.family in ("file", "onnx"):
        return f"{spec.family}/{Path(spec.path).name}"
    if spec.path.startswith(LOCAL) or (spec.family == "hf" and Path(spec.path).is_dir()):
        return f"{spec.family}/{Path(spec.path.removeprefix(LOCAL)).name}"
    return spec.text.partition("?")[0]


def _of_run(spec: Spec, part: str, seen: frozenset[str]) -> Iterator[Origin]:
    run = RunFolder(spec.path)
    name = f"run {run.path.resolve().name}"
    settings = _settings(run)
    if settings is None or str(run.path.resolve()) in seen:
        yield _origin(name, part, UNKNOWN)
        return
    yield _origin(name, part, OWN)
    seen |= {str(run.path.resolve())}
    trained = spec.options.get("weights", "teacher") == "teacher"
    for key, what in (("init", f"{name} began with them"), ("guide", f"{name} was taught by them")):
        text = settings.get(key)
        if text is None or (key == "guide" and not trained):
            continue
        try:
            inner = parse_spec(str(text))
        except WeightsError:
            yield _origin(str(text).partition("?")[0].rpartition("/")[2], what, UNKNOWN)
            continue
        yield from origins(inner, what, seen)


def _settings(run: RunFolder) -> Mapping[str, Any] | None:
    try:
        found = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return found if isinstance(found, Mapping) else None


def _licences(spec: Spec) -> list[str]:
    if spec.family in _FAMILIES:
        return [_FAMILIES[spec.family]]
    if spec.family == "timm" and spec.path.startswith(LOCAL):
        return _of_folder(Path(spec.path.removeprefix(LOCAL)))
    if spec.family == "timm":
        return [str(architecture.published_config(spec.path).get("license") or UNKNOWN)]
    if spec.family == "hf" and Path(spec.path).is_dir():
        return [_of_card(Path(spec.path) / "README.md")]
    if spec.family == "hf":
        return [next((licence for start, licence in _LIST if spec.path.startswith(start)), UNKNOWN)]
    return [_of_file(spec) if spec.family == "file" else UNKNOWN]


def _of_folder(folder: Path) -> list[str]:
    """What `selfsight export` wrote into a folder of timm, or timm itself."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [UNKNOWN]
    ours = told.get("selfsight", {}).get("licences")
    return [str(told.get("pretrained_cfg", {}).get("license") or UNKNOWN)] if ours is None else [str(each) for each in ours]


def _of_card(path: Path) -> str:
    """What the head of a model card says; one of ours says nothing where nobody else has a part."""
    try:
        head = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
    except (OSError, IndexError, yaml.YAMLError, UnicodeDecodeError):
        return UNKNOWN
    if not isinstance(head, Mapping):
        return UNKNOWN
    own = OWN if "selfsight" in (head.get("tags") or ()) else UNKNOWN
    return str(head.get("license_name") or head.get("license") or own)


def _of_file(spec: Spec) -> str:
    """A checkpoint's licence is what its trainer left in it, or what its name says."""
    try:
        with Path(spec.path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    words = f"{Path(spec.path).name} {spec.options.get('arch', '')}".lower()
    for mark, licence in _MARKS.items():
        if mark in head or mark.decode().lower() in words:
            return licence
    return DINOV3 if "dinov3" in words else UNKNOWN
