"""docs/shift.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

import pictures
from guides import Guide, executed, left, typed
from selfsight import results

GUIDE = Guide("shift")


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    [spec] = GUIDE.written_in("yaml")
    (tmp_path / "signs.yaml").write_text(spec)
    pictures.folder(tmp_path / "labelled", 24, classes=2)
    # A real CNN says nothing more of the commands, and takes a minute.
    synth, broken, both = (line.replace("efficientnet-lite0", "random/vit_w32_d1_p8?size=32") for line in GUIDE.commands)
    typed(synth, capsys)
    printed = typed(broken, capsys)
    assert left(broken, printed, tmp_path)
    assert "pixels: falls under hue" in printed and "Hue hurts it" in printed
    said = executed(GUIDE.python, capsys)
    change = next(e.change for e in _shift("broken").effects if (e.encoder, e.condition) == ("pixels", "shift.hue"))
    assert said[0] == f"pixels under shift.hue: {change:+.1f} points" and change < -50
    assert len(said) == 1 + 2 * 3
    printed = typed(both, capsys)
    assert "(--shift-count 60)" in printed
    found = results.read("both")
    assert found.verdict is not None and (found.verdict.endpoint, found.data.n_train) == ("linear top1", 18)
    assert (_shift("both").n_train, _shift("both").n_test) == (60, 30)
    assert {s.condition for s in found.scores if s.task == "shift"} == {
        "clean", "shift.hue", "shift.size.small", "shift.light",
    }  # fmt: skip


def _shift(folder: str) -> results.Shift:
    found = results.read(folder).shift
    assert found is not None
    return found
