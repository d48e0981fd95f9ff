"""docs/finetune.md: its commands and its Python run, one after the other, on small data."""

from __future__ import annotations

from pathlib import Path

import pytest

import labelled
from guides import Guide, executed, typed
from selfsight.api import tuned_task

GUIDE = Guide("finetune")


def quick(text: str) -> str:
    """The same with a small network and one epoch."""
    small = text.replace("efficientnet-lite0", "random/test_efficientnet?size=32")
    return small if "--resume" in text or "selfsight finetune " not in text else f"{small} --epochs 1 --set workers=0"


def test_its_commands_and_its_python_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    labelled.stripes(Path("labelled"), (12, 12, 12))
    labelled.stripes(Path("photos"), (4, 4, 4), seed=1)
    labelled.stripes(Path("holdout"), (4, 4, 4), seed=2)
    assert len(GUIDE.commands) == 7
    monkeypatch.setattr(tuned_task, "FACTORS", (1.0,))
    monkeypatch.setattr(tuned_task, "EPOCHS", 1.0)
    for command in GUIDE.commands:
        typed(quick(command), capsys)
    executed([quick(code) for code in GUIDE.python], capsys)
    assert {path.name for path in Path("runs").iterdir()} == {"birds", "head", "adapters", "second"}
    assert Path("answers.csv").is_file()
    assert len(list(Path("results/finetuned").iterdir())) == 2
