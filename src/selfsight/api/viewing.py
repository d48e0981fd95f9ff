"""`views`: a contact sheet of what a training will see, and how long it takes to make here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from selfsight import config
from selfsight import device as devices
from selfsight.api.training import plan_training, usual_workers
from selfsight.api.watch import Silent, Watch
from selfsight.data.decode import DecodeSettings, UndecodableError
from selfsight.data.loader import open_sample
from selfsight.data.presets import DEFAULT_DOMAIN, PUBLISHED, domain_changes
from selfsight.data.sheet import SheetRow, described, draw_sheet, sheet_row
from selfsight.data.sources import BadImage, Source, open_source
from selfsight.data.timing import stage_seconds, worker_speed
from selfsight.data.views import ViewSettings
from selfsight.errors import ConfigError, DataError, InputError, nearest
from selfsight.runs import write_atomic
from selfsight.ssl.estimate import estimate
from selfsight.ssl.facts import look_at
from selfsight.ssl.recipes import RECIPES
from selfsight.ssl.settings import TrainSettings

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MOST_IMAGES = 64
_TIMED = 64
_BATCH = 16
_FEW, _PATIENCE = 8, 1.5
"""Images in a first trial of the network on a CPU, and the seconds that a step of the whole batch may take there."""


class _Plan(NamedTuple):
    views: ViewSettings
    workers: int
    training: TrainSettings | None
    """None for published views of which there is no recipe, and so no network."""


def views(
    data: str | Path,
    out: str | Path,
    *,
    recipe: str = "dino",
    domain: str | None = None,
    images: int = 6,
    seed: int = 0,
    channels: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    set: Sequence[str] | Mapping[str, Any] = (),
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Draw the first `images` of the first epoch and their views to `out`, a .png or .jpg, and time what a training waits for.

    The views are those that `train` would derive for these images, or with the name of a published set (dinov2, dinov2-paper,
    dinov3, small) those. Returns what was shown and left out, milliseconds an image of each stage on one core, images/s of one
    worker, of `workers` of them (as many as a training would have) and of the network, and the share of its time that a training
    would wait; the last two are None where no recipe says which network. Raises `InputError`.
    """
    watch = watch or Silent()
    path = _checked(out, images)
    source = open_source(data)
    given = {"seed": seed, "device": device, "domain": domain, "workers": workers}
    on = devices.resolve(device)
    plan = _plan(source, recipe, given, channels, set, on)
    rows, bad = _rows(source, images, seed, plan.views, watch)
    named = domain or (plan.training.domain if plan.training else DEFAULT_DOMAIN)
    title = f"{Path(source.location).name or source.location}, {recipe} views, domain {named}, seed {seed}"
    sheet = draw_sheet(rows, plan.views, title, described(plan.views))
    write_atomic(path, lambda temporary: sheet.save(temporary, _FORMATS[path.suffix.lower()]))
    return {
        "sheet": str(path),
        "recipe": recipe,
        "domain": named,
        "views": plan.views.model_dump(mode="json"),
        "images": [row.key for row in rows],
        "bad_images": [{"key": image.key, "reason": image.reason} for image in bad],
        **_measured(source, plan, seed, on, watch),
    }


def _checked(out: str | Path, images: int) -> Path:
    path = Path(out)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"--out {out}: expected a file that ends in .png or .jpg")
    if path.is_dir():
        raise InputError(f"--out {out}: is a folder; expected a file that ends in .png or .jpg")
    if not 1 <= images <= _MOST_IMAGES:
        raise ConfigError(f"--images: expected 1 to {_MOST_IMAGES}. Got {images}.")
    return path


def _plan(
    source: Source,
    recipe: str,
    given: Mapping[str, Any],
    channels: int | None,
    overrides: Sequence[str] | Mapping[str, Any],
    on: torch.device,
) -> _Plan:
    read = {} if channels is None else {"views": {"read": {"channels": channels}}}
    if recipe in RECIPES:
        settings, _, _ = plan_training(source, recipe, None, {**given, **read}, None, overrides)
        return _Plan(settings.views, settings.workers, settings)
    if recipe not in PUBLISHED:
        raise ConfigError(f"--recipe: no recipe '{recipe}'. {nearest(recipe, {*RECIPES, *PUBLISHED})}")
    tree = dict(overrides) if isinstance(overrides, Mapping) else config.parse_overrides(overrides)
    for key in tree:
        if key != "views":
            raise ConfigError(f"--set {key}: the published views of {recipe} have settings views.* alone")
    tree = config.merge(read, tree).get("views", {})
    workers = given["workers"]
    return _Plan(
        _published(source, recipe, given["domain"], tree),
        usual_workers(on, devices.cores()) if workers is None else workers,
        None,
    )


def _published(source: Source, recipe: str, domain: str | None, over: Mapping[str, Any]) -> ViewSettings:
    """Published views with the changes of a domain; other than three channels are normalised as they are measured."""
    read = config.build(DecodeSettings, over.get("read", {}), "views.read")
    tree = PUBLISHED[recipe].model_dump() | domain_changes(domain or DEFAULT_DOMAIN, read.channels)
    if read.channels != 3:
        facts = look_at(source, False, devices.cores(), read).facts
        tree |= {"mean": facts.mean, "std": facts.std}
    return config.build(ViewSettings, config.merge(tree, over), "views")


def _rows(source: Source, count: int, seed: int, settings: ViewSettings, watch: Watch) -> tuple[list[SheetRow], list[BadImage]]:
    """The first images of the first epoch that can be read, and those met before that cannot."""
    rows: list[SheetRow] = []
    bad: list[BadImage] = list(source.rejected)
    for sample in _first_samples(source, seed, 0, _MOST_IMAGES + count):
        image = open_sample(source, sample, settings.read)
        try:
            if isinstance(image, BadImage):
                bad.append(image)
            else:
                rows.append(sheet_row(source.keys[sample], image, sample, seed, settings))
        except UndecodableError as error:
            bad.append(BadImage(source.keys[sample], str(error)))
        watch.advance("drawing views", len(rows), count)
        if len(rows) == count:
            break
    if not rows:
        last = bad[-1]
        raise DataError(f"{source.location}: none of the {len(bad)} images looked at can be read; last {last.key}: {last.reason}")
    return rows, bad


def _first_samples(source: Source, seed: int, epoch: int, count: int) -> list[int]:
    drawn = source.draws(seed, epoch, np.arange(min(count, len(source)))).indices.tolist()
    return list(dict.fromkeys(drawn))  # a mixture may draw an image twice


def _measured(source: Source, plan: _Plan, seed: int, on: torch.device, watch: Watch) -> dict[str, Any]:
    threads = torch.get_num_threads()
    watch.advance("timing", 0, 3)
    stages = stage_seconds(source, _first_samples(source, seed, 1, _TIMED), plan.views, seed, on)
    # An accelerator does the colours itself.
    on_cpu = stages.read + stages.decode + stages.crop + (stages.photometry if on.type == "cpu" else 0.0)
    watch.advance("timing", 1, 3)
    one = 1 / on_cpu if stages.images else 0.0
    loader = worker_speed(
        source,
        plan.views,
        batch_size=min(_BATCH, len(source)),
        seed=seed,
        workers=plan.workers,
        finish=on.type == "cpu",
        one=one,
    )
    watch.advance("timing", 2, 3)
    try:
        network = _network_speed(plan.training, source, on) if plan.training else None
    finally:
        torch.set_num_threads(threads)
    watch.advance("timing", 3, 3)
    return {
        **{f"{name}_ms": 1000 * getattr(stages, name) for name in ("read", "decode", "crop", "photometry")},
        "timed_images": stages.images,
        "device": on.type,
        "worker_images_per_second": one,
        "workers": plan.workers,
        "loader_images_per_second": loader,
        "network_images_per_second": network,
        "wait_share": None if network is None else wait_share(loader, network, plan.workers),
    }


def _network_speed(settings: TrainSettings, source: Source, on: torch.device) -> float:
    """Images/s of training steps that wait for nothing. Of a slow network a part of the batch says enough."""
    few = min(_FEW, settings.batch_size)
    for size in (few, settings.batch_size) if on.type == "cpu" else (settings.batch_size,):
        seconds = estimate(settings.model_copy(update={"batch_size": size}), source).network_seconds
        if seconds / size * settings.batch_size > _PATIENCE:
            break
    return size / seconds


def wait_share(loader: float, network: float, workers: int) -> float:
    """The share of a training's time in which it waits for views, from images/s of both.

    Workers make views while the network computes, so it waits only for what they lack; without workers it waits for all of it.
    """
    if not workers:
        return network / (network + loader)
    return max(0.0, 1 - loader / network)
