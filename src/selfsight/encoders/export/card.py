"""The model card that lies beside exported weights: what they are, how to load them, and what binds whoever passes them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selfsight.encoders.base import TorchEncoder
from selfsight.encoders.export.base import Target, weights_of
from selfsight.encoders.export.licences import OWN, Origin, overall
from selfsight.results import Score

_LINKS = {"dinov3-license": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"}


class About(NamedTuple):
    """What is known besides the network: `settings` of the run it is from (empty where it is none), the `scores` of a comparison
    on `data`, and the `origins` of its weights."""

    settings: Mapping[str, Any]
    scores: Sequence[Score]
    data: str
    origins: list[Origin]


def card(encoder: TorchEncoder, target: Target, found: float | None, notes: Sequence[str], *, out: Path, about: About) -> str:
    """Markdown with the head that model hubs read. `found` is the largest difference when it was verified."""
    network = encoder.backbone.settings.name
    parts = [
        f"# {out.stem}",
        f"An image encoder: {network}, {encoder.parameters:,} parameters, features of {encoder.feature_width} numbers (pool "
        f"`{encoder.pool}`). Weights: {weights_of(encoder)}. Exported by selfsight; {_verification(target, found)}",
        f"## Load\n\n```python\n{target.usage(out, encoder)}\n```",
        *(f"{note[0].upper()}{note[1:]}." for note in notes),
        f"## Preprocessing\n\n{_preprocessing(encoder)}",
        *([f"## Training\n\n{_training(about.settings)}"] if about.settings else []),
        *([f"## Scores\n\n{_scores(about)}"] if about.scores else []),
        f"## Licence\n\n{_licence(about.origins)}",
    ]
    return f"---\n{_head(encoder, target, about)}---\n\n" + "\n\n".join(parts) + "\n"


def _head(encoder: TorchEncoder, target: Target, about: About) -> str:
    licence = overall(about.origins)
    fields: dict[str, Any] = {}
    if licence in _LINKS:
        fields = {"license": "other", "license_name": licence, "license_link": _LINKS[licence]}
    elif licence != OWN:
        fields = {"license": licence}
    fields |= {"library_name": target.library, "pipeline_tag": "image-feature-extraction"}
    return yaml.safe_dump(fields | {"tags": ["selfsight", encoder.kind]}, sort_keys=False)


def _verification(target: Target, found: float | None) -> str:
    if found is None:
        return f"not verified, as {target.library} was not installed."
    return f"loaded again with {target.library} it differed from the original by at most {found:.1e}."


def _preprocessing(encoder: TorchEncoder) -> str:
    prepare = encoder.prepare
    resized = f"{int(prepare.size / prepare.crop_pct)} pixels ({prepare.interpolation})"
    cut = f"the middle of {' x '.join(map(str, prepare.shape))} is kept" if prepare.one_shape else "nothing is cut away"
    return (
        f"The shorter side is resized to {resized}, {cut}, and (pixel / 255 - mean) / std is taken with mean "
        f"{_numbers(prepare.mean)} and std {_numbers(prepare.std)}."
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _training(settings: Mapping[str, Any]) -> str:
    """From config.yaml of the run; data by their name alone, as a card is read elsewhere."""
    data = settings.get("data", "")
    names = [data] if isinstance(data, str) else list(data)
    objective = settings.get("objective")
    kind = objective.get("name") if isinstance(objective, Mapping) else None
    budget = [f"{key}: {settings[key]:g}" for key in ("epochs", "minutes") if settings.get(key) is not None]
    rows = {
        "recipe": settings.get("recipe"),
        "objective": kind,
        "data": ", ".join(Path(str(name)).name for name in names),
        "images": settings.get("images"),
        "budget": ", ".join(budget),
        "batch size": settings.get("batch_size"),
        "seed": settings.get("seed"),
    }
    return "| setting | value |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value)


def _scores(about: About) -> str:
    rows = ["| task | condition | metric | value | images |", "|---|---|---|---|---|"]
    rows += [
        f"| {s.task} | {s.condition} | {s.metric} | {s.value:.1f} ({s.low:.1f} to {s.high:.1f}) | {s.n} |" for s in about.scores
    ]
    return f"On {about.data}, in percent, with intervals of 95 %.\n\n" + "\n".join(rows)


def _licence(origins: list[Origin]) -> str:
    lines = []
    for origin in origins:
        licence = "made here, under no licence of others" if origin.licence == OWN else origin.licence
        flag = f" **Before you pass them on: {origin.remark}.**" if origin.flagged else ""
        lines.append(f"- `{origin.source}` ({origin.part}): {licence}.{flag}")
    return "\n".join(lines)
