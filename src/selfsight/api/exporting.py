"""`export`: an encoder in the form of another library, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selfsight import config, results
from selfsight.api.watch import Silent, Watch
from selfsight.encoders import Spec, load_encoder, parse_spec
from selfsight.encoders.export import checked, export_encoder
from selfsight.encoders.export.card import About, card
from selfsight.encoders.export.licences import origins
from selfsight.encoders.spec import RUNS
from selfsight.errors import InputError
from selfsight.results import Results, Score
from selfsight.runs import RunFolder

_STEPS = 2


def export(
    encoder: str, to: str, out: str | Path, *, results: str | Path | None = None, watch: Watch | None = None
) -> dict[str, Any]:
    """Write `encoder` in the form `to` (timm, transformers or onnx) at `out`, and a model card beside it.

    What was written is loaded again with the library it is for; the largest difference of outputs is returned, and one above
    1e-4 is an error that leaves nothing. `results` is the folder of a comparison whose scores the card shows; a run's own is
    found within it. Returns a summary (path, card, difference, which is None where the library is not installed, notes, flags:
    what binds whoever passes the weights on). Raises `InputError` for a place that is taken or a form that does not exist,
    `WeightsError` for a network that it cannot hold.
    """
    watch = watch or Silent()
    spec, place = parse_spec(encoder), Path(out)
    checked(to, place)
    loaded = load_encoder(encoder)
    for note in loaded.notes:
        watch.say(f"{encoder}: {note}")
    about = _about(spec, results)
    watch.advance("export", 1, _STEPS)
    made = export_encoder(loaded, to, place, partial(card, out=place, about=about))
    watch.advance("export", _STEPS, _STEPS)
    flags = [f"{origin.source} ({origin.part}): {origin.remark}" for origin in about.origins if origin.flagged]
    return {"path": made.path, "card": made.card, "difference": made.difference, "notes": made.notes, "flags": flags}


def _about(spec: Spec, folder: str | Path | None) -> About:
    settings: Mapping[str, Any] = {}
    found = None if folder is None else results.read(folder)
    if spec.family == RUNS:
        run = RunFolder(spec.path)
        settings = config.read_yaml(run.config) if spec.options.get("weights", "teacher") == "teacher" else {}
        beside = next((at for at in (run.path, run.path / "results") if (at / "results.json").is_file()), None)
        if found is None and beside is not None:
            found = results.read(beside)
            folder = beside
    scores = [] if found is None else _scores(spec, found, folder)
    data = "" if found is None else f"{found.data.n_test} test images of {found.title}"
    return About(settings, scores, data, list(origins(spec)))


def _scores(spec: Spec, found: Results, folder: str | Path | None) -> Sequence[Score]:
    """Those of this encoder, however its folder was written."""
    names = {each.spec for each in found.encoders if each.spec == spec.text or _same(spec, each.spec)}
    if not names:
        known = ", ".join(each.spec for each in found.encoders)
        raise InputError(f"--results {folder}: has no scores of {spec.text}; it compares {known}")
    return [score for score in found.scores if score.encoder in names]


def _same(spec: Spec, other: str) -> bool:
    body, _, tail = other.partition("?")
    mine = spec.text.partition("?")[2]
    return spec.family == RUNS and tail == mine and Path(body).resolve() == Path(spec.path).resolve()
