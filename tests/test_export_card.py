"""What lies beside exported weights: how to load them, what is known of them, and whose they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import results_folder
from exported_networks import photographs, run
from selfsight import api, load_encoder
from selfsight.cli import main
from selfsight.encoders import parse_spec
from selfsight.encoders.export import TARGETS
from selfsight.encoders.export.licences import Origin, origins, overall
from selfsight.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONE = {"name": "vit_w32_d1_p8", "image_size": 32}
DINOV3 = "timm/vit_small_patch16_dinov3.lvd1689m"


def head(card: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("to", TARGETS)
def test_its_code_loads_the_export_and_gives_the_features(to: str, place: Path) -> None:
    run(Path("runs/mine"), BACKBONE)
    made = api.export("runs/mine?crop=.8", to, "out.onnx" if to == "onnx" else "out")
    photographs(Path("jpegs"), 1)[0].resize((64, 48)).save("picture.jpg", quality=95)
    known: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", made["card"].read_text(encoding="utf-8"), re.S)[0], known)
    encoder = load_encoder("runs/mine?crop=.8")
    expected = encoder.encode(encoder.prepare(Image.open("picture.jpg").convert("RGB"))[None])
    found = torch.as_tensor(known["cls"] if to == "transformers" else known["features"]).detach()
    # The processor of transformers resizes to other levels here and there.
    torch.testing.assert_close(found, expected, atol=0.05 if to == "transformers" else 1e-5, rtol=1e-5)


def test_what_it_says_of_a_run(place: Path) -> None:
    run(Path("runs/demo"), BACKBONE)
    results_folder.build(Path("runs/demo/results"))
    made = api.export("runs/demo", "timm", "net")
    text = made["card"].read_text(encoding="utf-8")
    assert head(text) == {"library_name": "timm", "pipeline_tag": "image-feature-extraction", "tags": ["selfsight", "vit"]}
    for line in ("| recipe | dino |", "| data | photos |", "| images | 12 |", "| budget | epochs: 2 |", "| batch size | 4 |"):
        assert line in text
    assert "(pixel / 255 - mean) / std is taken with mean 0.5, 0.4, 0.3 and std 0.25, 0.2, 0.3." in text
    assert re.search(r"^\| linear \| clean \| top1 \| \d+\.\d \(.* to .*\) \| \d+ \|$", text, re.M)
    assert "/somewhere" not in text
    assert made["flags"] == []


def test_results_of_other_encoders_are_refused(place: Path) -> None:
    run(Path("runs/other"), BACKBONE)
    results_folder.build(place / "results")
    with pytest.raises(InputError, match=r"--results results: has no scores of runs/other; it compares efficientnet-lite0, "):
        api.export("runs/other", "timm", "net", results="results")
    assert not (place / "net").exists()


def told(spec: str) -> list[tuple[str, str, str]]:
    return [(origin.source, origin.part, origin.licence) for origin in origins(parse_spec(spec))]


def test_a_run_hands_on_what_it_began_with_and_what_taught_it(place: Path) -> None:
    run(Path("runs/first"), BACKBONE, init=DINOV3, guide=None)
    first = Path("runs/first")
    second = run(
        Path("runs/second"),
        BACKBONE,
        init=f"runs/{first.absolute()}",
        guide=f"file/{place}/lightly_train-vit.pt?arch=vit_tiny_patch16_224",
    )
    save_file(load_file(first / "teacher.safetensors"), second / "init.safetensors")
    weights = DINOV3, "run first began with them", "dinov3-license"
    assert told("runs/second") == [
        ("run second", "the weights", ""),
        ("run first", "run second began with them", ""),
        weights,
        ("file/lightly_train-vit.pt", "run second was taught by them", "agpl-3.0"),
    ]
    assert told("runs/second?weights=init")[2:] == [weights]
    made = api.export("runs/second", "timm", "net")
    assert [flag.partition(":")[0] for flag in made["flags"]] == [
        f"{DINOV3} (run first began with them)",
        "file/lightly_train-vit.pt (run second was taught by them)",
    ]
    text = made["card"].read_text(encoding="utf-8")
    assert head(text)["license"] == "other"
    assert text.count("**Before you pass them on:") == 2
    assert "Meta's own DINOv3 License (https://ai.meta.com/" in text
    untrained = api.export("runs/second?weights=init", "timm", "before")
    assert "Weights: what run second started from: runs/first." in untrained["card"].read_text(encoding="utf-8")
    assert told("timm/local-dir:net") == [("timm/net", "the weights", each) for each in ("", "agpl-3.0", "dinov3-license")]
    assert str(place) not in text


def test_a_run_that_is_gone_or_began_with_itself_is_of_unknown_origin(place: Path) -> None:
    run(Path("runs/orphan"), BACKBONE, init=f"runs/{place}/gone")
    assert told("runs/orphan")[1] == ("run gone", "run orphan began with them", "unknown")
    run(Path("runs/circle"), BACKBONE, init=f"runs/{place}/runs/circle")
    assert [licence for _, _, licence in told("runs/circle")] == ["", "unknown"]


@pytest.mark.parametrize(
    ("spec", "licence", "flagged"),
    [
        ("random/resnet18", "", False),
        ("efficientnet-lite0", "apache-2.0", False),
        ("timm/vit_small_patch14_dinov2.lvd142m", "apache-2.0", False),
        ("timm/resnet50.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", True),
        (DINOV3, "dinov3-license", True),
        ("hf/facebook/dinov2-small", "apache-2.0", False),
        ("hf/facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3-license", True),
        ("hf/somebody/network", "unknown", True),
        ("file/ours.pt?arch=resnet18", "unknown", True),
        ("file/a.pth?arch=vit_small_patch16_dinov3", "dinov3-license", True),
    ],
)
def test_licences(spec: str, licence: str, flagged: bool) -> None:
    (origin,) = origins(parse_spec(spec))
    assert (origin.licence, origin.flagged) == (licence, flagged)


def test_trainers_under_the_agpl_are_known_by_what_they_leave_in_a_checkpoint(place: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "license": "AGPL-3.0 (https://ultralytics.com/license)"}, "best.pt")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "lightly_train": {"version": 1}}, "last.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, "plain.ckpt")
    licences = [told(f"file/{name}?arch=resnet18")[0][2] for name in ("best.pt", "last.ckpt", "plain.ckpt")]
    assert licences == ["agpl-3.0", "agpl-3.0", "unknown"]


def test_one_word_for_several_licences() -> None:
    def of(*licences: str) -> str:
        return overall([Origin("x", "the weights", licence, "") for licence in licences])

    assert of("") == ""
    assert of("", "mit", "mit") == "mit"
    assert of("mit", "apache-2.0") == "other"
    assert of("mit", "unknown") == "unknown"


def test_the_closing_lines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Path("runs/mine"), BACKBONE, init=DINOV3)
    with pytest.raises(SystemExit) as done:
        main(["export", "runs/mine?pool=cls+mean", "--to", "timm", "--out", "net"])
    assert done.value.code == 0
    note, licence, closing = capsys.readouterr().out.splitlines()
    assert note == "note: timm has no pool 'cls+mean': its network's output is that of pool 'token'"
    assert licence.startswith(f"licence: {DINOV3} (run mine began with them): they are under Meta's own DINOv3 License")
    assert closing == "done: net, timm, largest difference 0.0e+00"
