"""A folder for `load_dataset` of Hugging Face `datasets`, and, where pictures have labels, for torchvision's `ImageFolder`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, box_of
from selfsight.synthesis.names import plain


class ImageFolder(Format):
    """`SPLIT/LABEL/NAME` (`SPLIT/NAME` where pictures have no label), `SPLIT/metadata.jsonl` and a `README.md`, which names the
    splits: without it `datasets` finds only those that are called train, validation or test.

    A row of the metadata is `file_name`, `label` (the name, where there is one), `objects` with `bbox` (left, top, width, height
    in pixels) and `categories` (names), and the factors of the picture and of its first object.
    """

    name = "imagefolder"
    says = "Hugging Face datasets: ImageFolder with metadata"

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        splits = drawn.splits()
        labelled = any(picture.label is not None for picture in drawn.pictures)
        for split, pictures in splits.items():
            (out / split).mkdir(parents=True)
            with (out / split / "metadata.jsonl").open("w", encoding="utf-8") as file:
                for picture in pictures:
                    place = picture.name if picture.label is None else f"{plain(picture.label)}/{picture.name}"
                    picture.link(out / split / place)
                    file.write(json.dumps({"file_name": place, **_metadata(picture, labelled)}) + "\n")
        (out / "README.md").write_text(_card(drawn.info.name, list(splits)), encoding="utf-8")
        return [f"{split}/metadata.jsonl" for split in splits]


def _metadata(picture: Picture, labelled: bool) -> dict[str, Any]:
    boxes, names = [box_of(each) for each in picture.objects], [each["class"] for each in picture.objects]
    label = {"label": picture.label} if labelled else {}
    return {**label, "objects": {"bbox": boxes, "categories": names}} | picture.factors()


def _card(title: str, splits: list[str]) -> str:
    """`datasets` wants names of splits of letters, digits, `_` and `.`."""
    files = [{"split": re.sub(r"[^\w.]", "_", split), "path": f"{split}/**"} for split in splits]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {title}\n"
