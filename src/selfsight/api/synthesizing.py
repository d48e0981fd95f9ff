"""`synth`: a spec in, a labelled data set out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selfsight import manifest
from selfsight.api.watch import Silent, Watch
from selfsight.errors import ConfigError, InputError, Interrupted
from selfsight.ray_cluster import check_engine
from selfsight.runs import alone, place_for_folder, write_atomic
from selfsight.ssl.signals import Asked, Stop
from selfsight.synthesis.backends import BACKENDS
from selfsight.synthesis.backends import backend as open_backend
from selfsight.synthesis.crew import Crew
from selfsight.synthesis.exports import check_drawable, check_formats
from selfsight.synthesis.exports import export as write_export
from selfsight.synthesis.files import resolved
from selfsight.synthesis.loading import checked, load_spec
from selfsight.synthesis.on_ray import RayCrew
from selfsight.synthesis.render import Hands, Order, render
from selfsight.synthesis.room import check_room
from selfsight.synthesis.sampler import counts
from selfsight.synthesis.sheet import contact_sheet, factor_sheet
from selfsight.synthesis.spec import SynthSpec

SHEET, FACTOR_SHEET = "sheet.png", "factors.png"


def synth(
    spec: str | Path | SynthSpec,
    out: str | Path,
    *,
    count: int = 1000,
    seed: int = 0,
    backend: str | None = None,
    workers: int | None = None,
    engine: str = "local",
    export: Sequence[str] = (),
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Draw the pictures of `spec` with all their labels to the folder `out`.

    `spec` is a YAML file, whose paths are relative to it, or a `SynthSpec`, whose paths are relative to the working directory.
    `count` pictures are drawn of `train`, and of the other splits as many as `splits` says; a picture depends on spec, seed,
    split and number alone. `backend` takes the place of the spec's. `workers` processes draw, by default one a core; 0 draws in
    this one. With `engine` ray as many actors of a Ray cluster do, by default one a core of the cluster.

    The set is `manifest.read`'s: pictures in `SPLIT/CLASS/`, label pictures in `labels/`, a row a picture and a row an object,
    `sheet.png` and `factors.png` to look at. The same call goes on with a set that is not finished, and does nothing where it is;
    with a larger `count` the set grows. `InputError` where spec or seed are others, or count is smaller. `Interrupted` on Ctrl-C
    and SIGTERM.

    `export` names formats of `synthesis.exports.FORMATS`: the finished set is written in each, to a folder beside it that has the
    format in its name (`out-coco`); one that is there is left as it is.

    Returns a summary: pictures, objects, splits (pictures of each), resumed (pictures of earlier calls), pictures_per_second
    (None where nothing was left to draw), files (the sheets, and the exports).
    """
    watch = watch or Silent()
    check_formats(export)
    check_engine(engine)
    order = _order(spec, out, count, seed, backend)
    check_drawable(export, order.spec, BACKENDS[order.spec.backend])
    with alone(order.folder):
        drawn = _drawn_of(order)
        check_room(order.spec, order.count, order.folder, drawn)
        if _finished(order):
            watch.say(f"{order.folder}: was finished before")
            resumed, rate = sum(counts(order.spec, order.count).values()), None
        else:
            _check_exports(order.folder, export)
            _remove_sheets(order.folder)
            resumed, rate = _render(order, _hands(order, engine, workers), watch)
            _draw_sheets(order.folder)
        exported = [_exported(order.folder, format, watch) for format in export]
    return _summary(order, resumed, rate, exported)


def _draw_sheets(folder: Path) -> None:
    content = manifest.read(folder)
    for name, picture in ((SHEET, contact_sheet(folder, content)), (FACTOR_SHEET, factor_sheet(content))):
        write_atomic(folder / name, lambda temporary, picture=picture: picture.save(temporary, "PNG"))  # type: ignore[misc]


def _remove_sheets(folder: Path) -> None:
    """Those of a set that grows: with them it would count as finished before they are drawn anew."""
    for name in (SHEET, FACTOR_SHEET):
        (folder / name).unlink(missing_ok=True)


def _check_exports(folder: Path, export: Sequence[str]) -> None:
    """What was exported before the set was whole is of another one, or of this one when it was smaller."""
    there = next((place for format in export if (place := _place_of(folder, format)).exists()), None)
    if there is not None:
        raise InputError(f"--export: {there} is there, though the set is still to be drawn; remove it to have it written anew")


def _place_of(folder: Path, format: str) -> Path:
    return folder.with_name(f"{folder.name}-{format}")


def _exported(folder: Path, format: str, watch: Watch) -> str:
    place = _place_of(folder, format)
    if place.exists():
        watch.say(f"{place}: is there, and left as it is")
    else:
        watch.say(f"writing {place}")
        write_export(folder, format, place)
    return str(place)


def read_spec(spec: str | Path | SynthSpec, backend: str | None = None) -> tuple[SynthSpec, Path]:
    """The spec with every folder as its files, all of which have been looked at, and the folder that they are relative to."""
    where = "spec" if isinstance(spec, SynthSpec) else str(spec)
    asked = checked(spec, where) if isinstance(spec, SynthSpec) else load_spec(spec)
    base = Path.cwd() if isinstance(spec, SynthSpec) else Path(spec).absolute().parent
    drawer = open_backend(backend or asked.backend, base)
    whole = resolved(asked, drawer, where)
    drawer.check(whole)
    return whole, base


def _order(spec: str | Path | SynthSpec, out: str | Path, count: int, seed: int, backend: str | None) -> Order:
    """What is to be drawn, once all that can be wrong with it has been looked at; nothing is written."""
    if count < 1:
        raise ConfigError(f"--count: expected 1 picture at least. Got {count}.")
    folder = place_for_folder(out).absolute()
    order = Order(*read_spec(spec, backend), folder, count, seed)
    _check_outside(order, out)
    return order


def _check_outside(order: Order, out: str | Path) -> None:
    """What is drawn would become a background of the next call."""
    inside = next((file for name in order.files() if (file := order.base / name).is_relative_to(order.folder)), None)
    if inside is not None:
        raise InputError(f"--out {out}: holds {inside}, which the spec draws from; give another folder")


def _drawn_of(order: Order) -> int:
    """Pictures of the set that are there; `InputError` where the folder holds something else, or another set."""
    folder = order.folder
    if not (folder / "dataset.json").is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"--out {folder}: holds files that are not of a drawn set; give another folder")
        return 0
    info = manifest.read_info(folder)
    for key, value in order.info().provenance.items():
        before = info.provenance.get(key)
        grows = key == "count" and isinstance(before, int) and before < value
        if before != value and not grows:
            told = "another spec" if key == "spec" else f"{key} {before}, not {value}"
            raise InputError(f"--out {folder}: was drawn with {told}; remove it to draw it anew, or give another --out")
    return len(manifest.read_samples(folder))


def _finished(order: Order) -> bool:
    folder = order.folder
    if not (folder / FACTOR_SHEET).is_file() or manifest.read_info(folder).provenance["count"] != order.count:
        return False
    closed = all((folder / f"{table}.parquet").is_file() for table in ("samples", "objects"))
    return closed and not any(folder.glob("*.jsonl"))


def _hands(order: Order, engine: str, workers: int | None) -> Hands:
    if engine == "ray":
        return RayCrew(order, workers)
    cores = len(os.sched_getaffinity(0))
    workers = cores if workers is None else workers
    threads = max(1, cores // workers) if workers else 0
    return Crew(partial(order.pen, threads), workers, lifetime=order.lifetime)


def _render(order: Order, hands: Hands, watch: Watch) -> tuple[int, float | None]:
    """(pictures of earlier calls, pictures a second)."""
    start, resumed, done, total = time.perf_counter(), 0, 0, 0
    with Stop() as stop:
        steps = render(order, hands)
        try:
            resumed, total = next(steps)
            if resumed:
                watch.say(f"{order.folder}: goes on after {resumed} of {total} pictures")
            for done, total in stop.waiting(steps):
                watch.advance(f"drawing {order.spec.name}", done, total)
                stop.check()
        except Asked as asked:
            raise Interrupted(asked.number, f"stopped by {asked.name}: {done or resumed} of {total} pictures are drawn") from None
        finally:
            steps.close()  # type: ignore[attr-defined]
    return resumed, (done - resumed) / (time.perf_counter() - start) if done else None


def _summary(order: Order, resumed: int, rate: float | None, exported: list[str]) -> dict[str, Any]:
    splits = dict(counts(order.spec, order.count))
    content = manifest.read(order.folder)
    files = [*(str(order.folder / name) for name in (SHEET, FACTOR_SHEET)), *exported]
    return {
        "pictures": len(content.samples),
        "objects": len(content.objects),
        "splits": splits,
        "resumed": resumed,
        "pictures_per_second": rate,
        "files": files,
    }
