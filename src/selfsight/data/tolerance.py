"""How many images may be unreadable before work stops, and the list of those that were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from selfsight.config import Settings
from selfsight.data.sources import BadImage
from selfsight.errors import DataError
from selfsight.runs import append_jsonl, read_jsonl

_ENOUGH = 200


class Tolerance(Settings):
    """`strict` stops at the first image that cannot be read; `max_bad` is the share of them that is borne."""

    strict: bool = False
    max_bad: float = Field(default=0.05, ge=0, le=1)

    def check(self, bad: Sequence[BadImage], tried: int, total: int, where: str) -> None:
        """Raise `TooManyBadError` where `bad` of the `tried` samples are too many. A share is judged from 200 samples on."""
        if not bad:
            return
        one = f"{bad[0].key}: {bad[0].reason}"
        if self.strict:
            raise TooManyBadError(f"{where}: {one} (--strict stops at the first image that cannot be read)", bad)
        if tried >= min(total, _ENOUGH) and len(bad) > self.max_bad * tried:
            share = f"{len(bad)} of {tried} images cannot be read ({100 * len(bad) / tried:.1f} %)"
            allowed = f"more than the {100 * self.max_bad:g} % that --max-bad allows"
            raise TooManyBadError(f"{where}: {share}, {allowed}; first {one}", bad)


class TooManyBadError(DataError):
    """More images are unreadable than the tolerance allows; `bad` holds them."""

    def __init__(self, message: str, bad: Sequence[BadImage]) -> None:
        super().__init__(message)
        self.bad = list(bad)


@contextmanager
def listed(path: Path) -> Iterator[None]:
    """Where the work inside meets too many bad images, write them to `path` before the error goes on."""
    try:
        yield
    except TooManyBadError as error:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        append_jsonl(path, [{"key": image.key, "reason": image.reason} for image in error.bad])
        raise TooManyBadError(f"{error}; listed in {path}", error.bad) from None


class BadImages:
    """The bad images of a run: each once, as it is met, in `bad_images.jsonl`.

    Images that were refused before (`known`: files that are none) are listed and not counted. Of several ranks, which are all
    told the same, one alone `writes`.
    """

    def __init__(
        self, path: Path, tolerance: Tolerance, total: int, where: str, known: Iterable[BadImage] = (), *, writes: bool = True
    ) -> None:
        self.writes = writes
        self.path, self.tolerance, self.total, self.where = path, tolerance, total, where
        self._known = {image.key for image in known}
        self._seen = {row["key"]: BadImage(row["key"], row["reason"]) for row in read_jsonl(path)}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def unreadable(self) -> list[BadImage]:
        return [image for key, image in self._seen.items() if key not in self._known]

    def add(self, images: Iterable[BadImage], tried: int) -> None:
        """`tried`: distinct samples looked at so far. Raises `TooManyBadError` once the list is written."""
        new = {image.key: image for image in images if image.key not in self._seen}
        if new:
            self._seen |= new
            if self.writes:
                append_jsonl(self.path, [{"key": image.key, "reason": image.reason} for image in new.values()])
        try:
            self.tolerance.check(self.unreadable, tried, self.total, self.where)
        except TooManyBadError as error:
            raise TooManyBadError(f"{error}; listed in {self.path}", error.bad) from None
