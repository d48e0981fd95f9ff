"""docs/shift.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from guides import Guide, executed, left, typed
from selfsight import results

GUIDE = Guide("shift")


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    [spec] = GUIDE.written_in("yaml")
    (tmp_path / "signs.yaml").write_text(spec)
    # A real CNN says nothing more of the commands, and takes a minute.
    synth, broken, *mended = (line.replace("efficientnet-lite0", "random/vit_w32_d1_p8?size=32") for line in GUIDE.commands)
    typed(f"{synth} --workers 0", capsys)  # processes take longer to start than to draw so few
    printed = typed(broken, capsys)
    assert left(broken, printed, tmp_path)
    assert "pixels: falls under hue" in printed and "Hue hurts it" in printed
    said = executed(GUIDE.python, capsys)
    change = next(e.change for e in _shift("broken").effects if (e.encoder, e.condition) == ("pixels", "shift.hue"))
    assert said[0] == f"pixels under shift.hue: {change:+.1f} points" and change < -50
    assert len(said) == 1 + 2 * 3
    refine, synth, compare = mended
    refined, drawn, compared = (typed(command, capsys) for command in (refine, f"{synth} --workers 0", compare))
    assert "shift of hue" in refined and "selfsight synth signs2.yaml --out signs2 --count 60 --seed 0" in refined
    assert "done: signs2" in drawn
    assert "since broken: pixels on shift of hue, answered by 33% of training with hue of the other classes" in compared
    assert {each.condition for each in _shift("mended").since} == {"clean", "shift.hue", "shift.size.small", "shift.light"}


def _shift(folder: str) -> results.Shift:
    found = results.read(folder).shift
    assert found is not None
    return found
