"""Maps of picture after picture into an output folder, and sheet and films of them at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsight.api.watch import Watch
from selfsight.attention import kinds
from selfsight.attention.components import Components, Floats, fitted
from selfsight.attention.drawing import for_the_eye, marked
from selfsight.attention.films import write_gif, write_mp4
from selfsight.attention.inputs import Clip, Input
from selfsight.attention.kinds import MAPS, Asked
from selfsight.attention.looking import Gaze, Look, Point
from selfsight.attention.output import FILMS, OutputFolder
from selfsight.attention.strips import draw_sheet
from selfsight.attention.tiling import TiledGaze
from selfsight.data.decode import Picture
from selfsight.data.loader import evenly_apart, read_picture
from selfsight.data.sources import BadImage
from selfsight.data.tolerance import BadImages
from selfsight.encoders import Encoder
from selfsight.encoders.features import none_readable
from selfsight.errors import InputError, SelfsightError
from selfsight.runs import write_atomic

_SAMPLE, _PLACES = 32, 512
"""Pictures of an input to which components are fitted, and places of each."""


@dataclass
class Drawing:
    """One call at work: `names` are its maps, `at` its point in pixels. `sheet` are the samples that the sheet shows."""

    given: Input
    encoder: Encoder
    gaze: Gaze | TiledGaze
    folder: OutputFolder
    names: Sequence[str]
    asked: Asked
    at: tuple[float, float] | None
    mend: bool
    rows: int

    def __post_init__(self) -> None:
        count = len(self.given.source)
        shown = min(self.rows, count) if "sheet" in self.folder.formats else 0
        even = np.linspace(0, count - 1, shown) if self.given.kind == "video" else np.arange(shown)
        self.sheet = dict.fromkeys(even.astype(int).tolist())
        self.clips: list[Clip] = self.given.clips if set(self.folder.formats) & set(FILMS) else []
        self._starts = np.array([clip.samples[0] for clip in self.clips])
        self.tokens = self.artefacts = 0

    def run(self, bad: BadImages, watch: Watch) -> None:
        """Make what is missing of every picture."""
        missing = [index for index, key in enumerate(self.given.source.keys) if not self._done(index, key)]
        total = len(self.given.source)
        if missing and total > 1 and any(MAPS[name].sample for name in self.names):
            self.asked = self.asked._replace(components=self.folder.components() or self._fitted(watch))
        for number, index in enumerate(missing, total - len(missing) + 1):
            problem = self._make(index)
            bad.add([problem] if problem else [], number)
            watch.advance("drawing maps", number, total)
        if not len(self.folder):
            raise none_readable(self.given.source, bad.unreadable)

    def _done(self, index: int, key: str) -> bool:
        return self.folder.has(key, sheet=index in self.sheet, film=self._film(index))

    def _film(self, index: int) -> Path | None:
        if not self.clips:
            return None
        return self.folder.film(self.clips[int(np.searchsorted(self._starts, index, side="right")) - 1].name)

    def _make(self, index: int) -> BadImage | None:
        key = self.given.source.keys[index]
        found = self._seen(index)
        if isinstance(found, BadImage):
            return found
        picture, point, look = found
        outliers = look.outliers if self.encoder.kind == "vit" else None
        if outliers is not None:
            self.tokens += len(outliers)
            self.artefacts += int(outliers.sum())
        values = kinds.made(self.names, look, self.asked._replace(at=point))
        if not kinds.finite(values):
            raise SelfsightError(f"{self.encoder.spec}: maps of '{key}' are not finite numbers; are its weights whole?")
        image = for_the_eye(picture)
        image = image if point is None else marked(image, point)
        row = {"grid": list(look.grid), "outliers": None if outliers is None else float(outliers.mean())}
        self.folder.add(key, image, values, row, sheet=index in self.sheet, film=bool(self.clips))
        return None

    def _seen(self, index: int) -> tuple[Picture, Point | None, Look] | BadImage:
        """The picture, the point as shares of its sides, and what is seen."""
        key = self.given.source.keys[index]
        picture = read_picture(self.given.source, index, self.encoder.read)
        if isinstance(picture, BadImage):
            return picture
        height, width = np.asarray(picture).shape[:2]
        point = None if self.at is None else (self.at[0] / width, self.at[1] / height)
        if point is not None and not max(point) < 1:
            x, y = self.at  # type: ignore[misc]
            if self.given.kind == "image":
                raise InputError(f"--query {x:g},{y:g}: lies outside of {key}, which is {width} x {height} pixels")
            return BadImage(key, f"the point {x:g},{y:g} is outside its {width} x {height} pixels")
        look = self.gaze(picture, point)
        return picture, point, look.mended() if self.mend else look

    def _fitted(self, watch: Watch) -> Components | None:
        """Components of pictures that lie evenly apart; kept for whoever goes on. None where none of them can be read."""
        chosen = evenly_apart(len(self.given.source), _SAMPLE)
        sample = []
        for number, index in enumerate(chosen, 1):
            found = self._seen(index)
            if not isinstance(found, BadImage):
                sample.append(_thinned(found[2]))
            watch.advance("finding components", number, len(chosen))
        if not sample:
            return None
        components = fitted(sample)
        self.folder.keep_components(components)
        return components

    def finish(self, watch: Watch) -> dict[str, Any]:
        """Put sheet and films together."""
        sheet = self._sheet() if "sheet" in self.folder.formats else None
        films = [str(path) for clip in self.clips for path in self._films(clip, watch)]
        self.folder.finish()
        share = self.artefacts / self.tokens if self.tokens else None
        return {"sheet": sheet, "films": films, "outliers": share}

    def _sheet(self) -> str:
        keys = [self.given.source.keys[index] for index in self.sheet]
        rows = [(key, strip) for key in keys if (strip := self.folder.strip(key, "sheet")).is_file()]
        if rows:
            title = f"{Path(self.given.source.location).name or self.given.source.location}, seen by {self.encoder.spec}"
            sheet = draw_sheet(rows, self.names, title, self._notes(), len(self.folder) - len(rows))
            write_atomic(self.folder.sheet, lambda temporary: sheet.save(temporary, "PNG"))
        return str(self.folder.sheet)

    def _notes(self) -> list[str]:
        said = self.folder.manifest
        words = [f"shorter side {said['size']} px"]
        words += [f"in tiles of {said['tile']} px"] if said["tile"] is not None else []
        words += [f"block {said['block']}"] if any(MAPS[name].row for name in self.names) else []
        words += [f"the mask holds {100 * self.asked.mass:g} % of the attention"] if "mask" in self.names else []
        words += ["outlier tokens replaced by their neighbours"] if self.mend else []
        return [", ".join(words)]

    def _films(self, clip: Clip, watch: Watch) -> Iterator[Path]:
        base = self.folder.film(clip.name)
        pairs = [(self.folder.strip(self.given.source.keys[index], "film"), at) for index, at in zip(*clip[1:], strict=True)]
        there = [(strip, at) for strip, at in pairs if strip.is_file()]
        for ending, write in (("mp4", write_mp4), ("gif", write_gif)):
            path = base.with_name(f"{base.name}.{ending}")
            if ending in self.folder.formats:
                if there and not path.is_file():
                    watch.say(f"writing {path}")
                    frames, seconds = zip(*there, strict=True)
                    write_atomic(path, lambda temporary, w=write, f=frames, s=seconds: w(temporary, f, s))  # type: ignore[misc]
                yield path


def _thinned(look: Look) -> tuple[Floats, tuple[int, int]]:
    """Features of some rows and columns of places, evenly apart, and their grid."""
    step = max(1, round((len(look.norms) / _PLACES) ** 0.5))
    places = look.patches.reshape(*look.grid, -1)[::step, ::step]
    return places.reshape(-1, places.shape[-1]), (places.shape[0], places.shape[1])
