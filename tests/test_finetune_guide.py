"""docs/finetune.md: its commands and its Python run, one after the other, on small data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import labelled
from selfsight.api import tuned_task
from selfsight.cli import main

GUIDE = (Path(__file__).parent.parent / "docs" / "finetune.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


def quick(text: str) -> str:
    """The same with a small network and one epoch."""
    small = text.replace("efficientnet-lite0", "random/test_efficientnet?size=32")
    return small if "--resume" in text or "selfsight finetune " not in text else f"{small} --epochs 1 --set workers=0"


def test_its_commands_and_its_python_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """In this process: to start a program eight times would take most of the time."""
    monkeypatch.chdir(tmp_path)
    labelled.stripes(Path("labelled"), (12, 12, 12))
    labelled.stripes(Path("photos"), (4, 4, 4), seed=1)
    labelled.stripes(Path("holdout"), (4, 4, 4), seed=2)
    commands = [shlex.split(quick(line))[1:] for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) == 7
    monkeypatch.setattr(tuned_task, "FACTORS", (1.0,))
    monkeypatch.setattr(tuned_task, "EPOCHS", 1.0)
    for command in commands:
        with pytest.raises(SystemExit) as left:
            main(command)
        assert left.value.code == 0, command
    for code in blocks("python"):
        exec(quick(code), {})
    assert {path.name for path in Path("runs").iterdir()} == {"birds", "head", "adapters", "second"}
    assert Path("answers.csv").is_file()
    assert len(list(Path("results/finetuned").iterdir())) == 2
