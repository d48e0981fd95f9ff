"""docs/training.md: its commands run, and its tables say what the recipes derive."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pictures
from guides import Guide, left, typed
from selfsight import api
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.recipes import RECIPES, Facts, as_tree

GUIDE = Guide("training")


def test_every_objective_has_a_line_that_says_when() -> None:
    table = GUIDE.text.split("## Objectives")[1].split("| setting |")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.M)) >= set(OBJECTIVES) | set(RECIPES)


@pytest.mark.parametrize("command", GUIDE.commands)
def test_its_commands_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.folder(tmp_path / "photos", 24, labelled=False)
    made = set() if "--resume" in command else set(re.findall(r"--out (runs/\w+)", command))
    for name in sorted(set(re.findall(r"runs/\w+", command)) - made):
        api.train(tmp_path / "photos", tmp_path / name, backbone="vit_w32_d1_p8", epochs=1, set={"batch_size": 8, "workers": 0})
    quick = command.replace("--minutes 60", "--epochs 1 --backbone vit_w32_d1_p8 --set batch_size=8")
    quick = quick.replace("--minutes 30", "--epochs 1 --limit 8 --set views.global_size=64 --set views.local_size=32")
    assert left(command, typed(quick, capsys), tmp_path)


def test_its_figures_are_those_of_the_recipes() -> None:
    facts = Facts(20_000, 400, True, 8)
    two, three = (as_tree(RECIPES[name](facts, "vit_w192_d6_p16")) for name in ("dinov2", "dinov3"))
    for tree in (two, three):
        assert (tree["backbone"]["registers"], tree["backbone"]["layer_scale"]) == (4, 1e-5)
        assert (tree["optimizer"]["layer_decay"], tree["optimizer"]["patch_embed_rate"]) == (0.9, 0.2)
    assert (three["objective"]["gram"]["start"], three["objective"]["gram"]["refresh_every"]) == (0.8, 0.05)
    assert three["optimizer"]["schedule"] == "constant"
    assert "drop_path" not in two["backbone"]
