"""MOTChallenge: the pictures of each sequence as numbered frames, and where each object is in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, full_box_of
from selfsight.synthesis.names import free, plain

_RATE = 30
"""Frames a second that `seqinfo.ini` tells: programs want a number, and a drawn sequence has no time."""
_DIGITS = 6


class Mot(Format):
    """`SPLIT/SEQUENCE/` with `img1/000001.png`, `gt/gt.txt`, `gt/labels.txt` (names of the classes) and `seqinfo.ini`.

    Frames are numbered from 1 in the order of the column `frame`; a gap in it is closed. A line of `gt.txt` is frame, object,
    left, top, width, height, 1, class from 1, share that is seen. As in the challenge the first pixel is 1, and a box is that of
    the whole object, though part of it is hidden or beyond the edge. An object keeps its number over the frames of a sequence.
    """

    name = "mot"
    says = "MOTChallenge: objects along sequences of frames"
    needs = "sequences"

    def lack(self, drawn: DrawnSet) -> str | None:
        alone = next((picture for picture in drawn.pictures if None in _place(picture)), None)
        if alone is not None:
            return f"{alone.row['key']} is of no sequence (columns 'sequence' and 'frame'), which mot needs; take coco"
        for (split, sequence), pictures in _sequences(drawn).items():
            if len({picture.row["frame"] for picture in pictures}) < len(pictures):
                return f"sequence '{sequence}' of {split} has several pictures of one frame; expected one each"
            if len({(*picture.size, picture.file.suffix) for picture in pictures}) > 1:
                return f"sequence '{sequence}' of {split} has pictures of several sizes or kinds; mot knows one a sequence"
        return None

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        taken: dict[str, set[str]] = defaultdict(set)
        files = []
        for (split, sequence), pictures in _sequences(drawn).items():
            name = free(plain(sequence), taken[split])
            _write(out / split / name, name, pictures, drawn.classes)
            files.append(f"{split}/{name}/gt/gt.txt")
        return files


def _place(picture: Picture) -> tuple[str | None, int | None]:
    return picture.row.get("sequence"), picture.row.get("frame")


def _sequences(drawn: DrawnSet) -> dict[tuple[str, str], list[Picture]]:
    """The pictures of each split and sequence, in the order of their frames."""
    found: dict[tuple[str, str], list[Picture]] = defaultdict(list)
    for picture in drawn.pictures:
        found[picture.split, str(picture.row["sequence"])].append(picture)
    return {of: sorted(pictures, key=lambda picture: picture.row["frame"]) for of, pictures in found.items()}


def _write(folder: Path, name: str, pictures: list[Picture], classes: list[str]) -> None:
    (folder / "gt").mkdir(parents=True)
    ending, (width, height) = pictures[0].file.suffix, pictures[0].size
    for frame, picture in enumerate(pictures, 1):
        picture.link(folder / "img1" / f"{frame:0{_DIGITS}d}{ending}")
    with (folder / "gt" / "gt.txt").open("w", encoding="utf-8") as file:
        file.writelines(_lines(pictures, classes))
    (folder / "gt" / "labels.txt").write_text("".join(f"{each}\n" for each in classes), encoding="utf-8")
    about = {"name": name, "imDir": "img1", "frameRate": _RATE, "seqLength": len(pictures)}
    about |= {"imWidth": width, "imHeight": height, "imExt": ending}
    lines = "".join(f"{key}={value}\n" for key, value in about.items())
    (folder / "seqinfo.ini").write_text(f"[Sequence]\n{lines}", encoding="utf-8")


def _lines(pictures: list[Picture], classes: list[str]) -> Iterator[str]:
    first = min((each["object"] for picture in pictures for each in picture.objects), default=1)
    shift = 1 if first < 1 else 0  # older sets number objects from 0
    for frame, picture in enumerate(pictures, 1):
        for each in picture.objects:
            left, top, width, height = full_box_of(each)
            numbers = [frame, each["object"] + shift, left + 1, top + 1, width, height, 1, classes.index(each["class"]) + 1]
            yield ",".join(map(str, numbers)) + f",{each['visible']:.6f}\n"
