"""docs/synth.md: its commands and its Python run as a reader would type them, and its pictures are what they draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import pictures
from backend_cases import cutout
from guides import Guide, executed, shows, typed
from selfsight import api
from selfsight.synthesis.template import template

GUIDE = Guide("synth")
SHEETS = {"sheet.png": "synth.jpg", "factors.png": "synth_factors.png"}


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cutouts" / "bolt").mkdir(parents=True)
    for number, colour in enumerate([(170, 170, 180), (120, 110, 90)]):
        cutout(tmp_path / "cutouts" / "bolt" / f"{number}.png", colour=colour)
    pictures.folder(tmp_path / "photos", 6, labelled=False)
    for name, spec in zip(("parts.yaml", "line.yaml"), GUIDE.written_in("yaml"), strict=True):
        (tmp_path / name).write_text(spec)
    template, dry, shapes, parts, compared, line, exported = GUIDE.commands
    (tmp_path / "shapes.yaml").write_text(typed(template.removesuffix(" > shapes.yaml"), capsys))
    assert "shift.light 15" in typed(f"{dry} --count 60", capsys)
    assert "train 60, test 15, shift.size.small 15" in typed(shapes, capsys)
    assert "done: parts, 90 pictures" in typed(parts, capsys)
    printed = executed(GUIDE.python, capsys)
    assert printed[0].startswith("90 pictures, ") and printed[0].endswith(" more than half hidden")
    assert printed[1:] == ["(96, 96)", "{'train': 20, 'test': 5, 'shift.rotation': 5}"]
    typed(compared, capsys)
    assert "train 16, test 8" in typed(line, capsys)
    assert (tmp_path / "line-mot/train/000001/seqinfo.ini").is_file()
    assert "all done before" in typed(exported, capsys)
    assert (tmp_path / "parts-coco" / "annotations" / "instances_shift.hue.json").is_file()
    assert (tmp_path / "parts-yolo-segments" / "data.yaml").is_file()
    assert (tmp_path / "small" / "report.html").is_file()


def test_its_pictures_are_those_of_its_commands(tmp_path: Path, one_thread: None) -> None:
    """`SELFSIGHT_REDRAW=1` draws them anew."""
    (tmp_path / "shapes.yaml").write_text(template())
    api.synth(tmp_path / "shapes.yaml", tmp_path / "shapes", count=60, workers=0)
    for made, shown in SHEETS.items():
        with Image.open(tmp_path / "shapes" / made) as sheet:
            shows(shown, sheet)
