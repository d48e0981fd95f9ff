"""The contract of a format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from selfsight.errors import DataError
from selfsight.synthesis.exports.drawn import DrawnSet, read_set
from selfsight.synthesis.spec import SynthSpec


class Format(ABC):
    """What other programs read. It writes file by file, so that no file is written twice."""

    name: ClassVar[str]
    says: ClassVar[str]
    """In a line, for lists of formats."""
    needs: ClassVar[str | None] = None
    """What of `frame.LABELS` a set must have, which not every backend knows."""

    def write(self, folder: Path, out: Path, split: str | None) -> dict[str, Any]:
        """Write the set in `folder`, or one `split` of it, to `out`, which is not there yet.

        Returns images, objects, hidden, and files: the paths within `out` to hand to a reader. `DataError`, before anything is
        written, where the set lacks what the format needs.
        """
        drawn = read_set(folder, split)
        lack = self.lack(drawn)
        if lack is not None:
            raise DataError(f"{folder}: {lack}")
        out.mkdir(parents=True)
        files = self.fill(drawn, out)
        objects = sum(len(picture.objects) for picture in drawn.pictures)
        return {"images": len(drawn.pictures), "objects": objects, "hidden": drawn.hidden, "files": files}

    def impossible(self, spec: SynthSpec) -> str | None:
        """Why no set that is drawn after `spec` can be told in this format, where that is known before drawing, and what would be
        right; None where it may be told."""
        return None

    def lack(self, drawn: DrawnSet) -> str | None:
        """Why the set cannot be told in this format, and what would be right; None where it can."""
        return None

    @abstractmethod
    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        """Write all files into the empty folder `out`; returns the `files` of the summary."""
