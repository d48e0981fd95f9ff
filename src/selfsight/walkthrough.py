"""The demo: the whole main job in minutes, on images drawn on the spot or on the user's own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsight.api import Silent, Watch, compare, synth, train
from selfsight.comparison.split import split
from selfsight.data.sources import open_source
from selfsight.errors import InputError
from selfsight.results import Results
from selfsight.runs import write_json_atomic
from selfsight.synthesis.specs import DEMO

MINUTES = 3.0
COUNT = 3000
"""Drawn pictures to train on; those to test are a quarter of them."""
LIMIT = 1500
PICTURES = 240
"""Drawn test images of which the masks are asked."""
# The drawn pictures are grey and evenly exposed: there is no brightness to become blind to, and jittering it only makes views
# of one picture look less alike, which a training of minutes does not get over.
SETTINGS: dict[str, Any] = {"views": {"jitter": 1.0, "brightness": 0.0, "solarize": 0.0, "grey": 0.0}}

SPEC = "images.yaml"
"""A copy of what the pictures were drawn from, to be changed and drawn again."""
_MARK = "demo.json"
_HONEST = (
    "A few minutes on a few cores show that the method works and what its curves look like, not what it can do: published "
    "self-supervised networks train for days on millions of images. The drawn pictures are easy for both encoders, no measure of "
    "yours. On real images a network trained from scratch for minutes does not reach one trained on ImageNet: there, the "
    "right verdict is to keep the CNN."
)


_SEEN = "The trained network has seen all of these images without their labels, the test images included; the other has not."


@dataclass(frozen=True)
class Demo:
    """Where the demo left its parts."""

    results: Results
    report: Path
    run: Path
    training: dict[str, Any]


def demo(
    data: str | Path | None = None,
    out: str | Path = "demo",
    *,
    minutes: float = MINUTES,
    seed: int = 0,
    device: str = "auto",
    watch: Watch | None = None,
) -> Demo:
    """Draw images (or take `data`), train a small ViT without labels, compare it with EfficientNet-Lite0, write the report.

    Of drawn images the masks are known, so what the networks look at is measured, too. `out` holds `images/` (drawn from the spec
    `images.yaml` beside it), `run/` and `results/`. An earlier demo there is replaced; another folder is left alone.
    """
    watch = watch or Silent()
    folder = Path(out)
    if data is not None:
        _check_own(Path(data), folder, seed)
    _prepare(folder)
    test = None
    if data is None:
        images, spec = folder / "images", folder / SPEC
        shutil.copyfile(DEMO, spec)
        synth(spec, images, count=COUNT, seed=seed, watch=watch)
        source, test = images / "train", images / "test"
    else:
        source = Path(data)
    run = folder / "run"
    summary = train(source, run, minutes=minutes, seed=seed, device=device, set=SETTINGS if data is None else (), watch=watch)
    encoders = ["efficientnet-lite0", str(run), f"{run}?weights=init", "pixels"]
    results = compare(
        source,
        encoders,
        folder / "results",
        test=test,
        tasks=["knn", "linear", "segmentation"] if data is None else None,
        mask_limit=PICTURES,
        device=device,
        limit=LIMIT,
        seed=seed,
        title="selfsight demo" if data is None else source.name,
        notes=[_HONEST] if data is None else [_HONEST, _SEEN],
        watch=watch,
    )
    return Demo(results, folder / "results" / "report.html", run, summary)


def _check_own(data: Path, folder: Path, seed: int) -> None:
    """What cannot be used fails before an earlier demo is replaced and before minutes of training."""
    given = data.resolve()
    if folder.resolve() in (given, *given.parents):
        raise InputError(f"{data}: lies in --out {folder}, which the demo replaces; give another --out")
    source = open_source(data)
    if source.labels is not None:
        split(source, None, limit=LIMIT, group_by=None, seed=seed)


def _prepare(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise InputError(f"--out {folder}: holds files that are not of a demo; give another folder")
        for part in ("images", "run", "results"):
            shutil.rmtree(folder / part, ignore_errors=True)
        (folder / SPEC).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / _MARK, {"what": "folder of 'selfsight demo'; the next demo replaces its parts"})
