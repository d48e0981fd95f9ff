"""A guide run as its reader would: commands typed one after the other, Python as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsight.cli import main

DOCS = Path(__file__).parent.parent / "docs"


class Guide:
    """A page of docs/: its `text`, and its `blocks` as (language, code), in their order."""

    def __init__(self, name: str) -> None:
        self.text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        self.blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", self.text, re.M | re.S)

    @property
    def commands(self) -> list[str]:
        return [line for code in self.written_in("bash") for line in code.splitlines() if line.strip()]

    @property
    def python(self) -> list[str]:
        return self.written_in("python")

    def written_in(self, language: str) -> list[str]:
        return [code for written, code in self.blocks if written == language]


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; in this process, as each start of another takes seconds."""
    program, *words = shlex.split(command)
    assert program == "selfsight"
    with pytest.raises(SystemExit) as left:
        main(words)
    shown = capsys.readouterr()
    assert not left.value.code, f"{command}\n{shown.out}\n{shown.err}"
    return shown.out


def left(command: str, printed: str, place: Path) -> bool:
    """Whether a command has made what its `--out` names, and said so."""
    (out,) = re.findall(r"--out (\S+)", command)
    return (place / out).exists() and out in printed.replace("\n", "")


def shows(name: str, picture: Image.Image) -> None:
    """A page shows this picture, but for what JPEG and another processor change. `SELFSIGHT_REDRAW=1` keeps it."""
    kept = DOCS / "pictures" / name
    picture = picture.convert("RGB")
    if os.environ.get("SELFSIGHT_REDRAW"):
        picture.save(kept, **({"quality": 80} if kept.suffix == ".jpg" else {}))
    with Image.open(kept) as stored:
        here, there = (np.asarray(one.convert("RGB"), dtype=int) for one in (picture, stored))
    assert here.shape == there.shape, name
    assert np.abs(here - there).mean() < 4, name


def executed(blocks: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that blocks of Python print, each in a namespace of its own, in this process."""
    for code in blocks:
        exec(code, {})
    return capsys.readouterr().out.splitlines()


def interpreted(code: str, place: Path, environment: Mapping[str, str]) -> str:
    """What Python prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout
