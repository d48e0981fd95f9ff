"""Fine-tuning: a head from a probe, then the whole network, the best weights kept; and what the run answers afterwards."""

from __future__ import annotations

import csv
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import labelled
import pictures
from encoder_files import network
from selfsight import api, config, load_encoder
from selfsight.api.judging import parts_as_named, parts_of
from selfsight.cli import main
from selfsight.data.sources import open_source
from selfsight.encoders import TorchEncoder
from selfsight.errors import ConfigError, DataError, InputError, WeightsError
from selfsight.runs import RunFolder, read_jsonl
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.tuning import TuningSettings
from small_training import differing, start

VIT, CNN = "random/vit_w32_d1_p8?size=16", "random/test_efficientnet?size=32"
QUICK: dict[str, Any] = {"threads": 1, "workers": 0}


pytestmark = pytest.mark.usefixtures("one_thread")


def tune(encoder: str, data: object, out: Path, over: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return api.finetune(encoder, data, out, set=config.merge(QUICK, over or {}), **({"device": "cpu"} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.stripes(tmp_path_factory.mktemp("labelled") / "stripes", (30, 30, 30))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.coloured(tmp_path_factory.mktemp("several") / "colours.parquet", 60)


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vit"
    tune(VIT, data, out)
    return out


class Watching(api.Silent):
    """Keeps the plan and what is said and measured; breaks off at a step if told to."""

    def __init__(self, breaks: int = -1) -> None:
        self.why: dict[str, str] = {}
        self.said: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.breaks = breaks

    def on_plan(self, settings: TrainSettings, derived: Any, expected: Any) -> None:
        self.why = {row.key: row.why for row in derived}

    def say(self, text: str) -> None:
        self.said.append(text)

    def on_probe(self, row: Any) -> None:
        self.seen.append(dict(row))

    def on_step(self, row: Any, progress: float) -> None:
        if row["step"] == self.breaks:
            raise RuntimeError("power cut")


def looks(out: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(out / "metrics.jsonl") if "val_loss" in row]


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "classifier.json").read_text())


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [VIT, CNN])
def test_a_network_whose_frozen_features_tell_nothing_learns_from_labels(
    encoder: str, data: Path, tuned: Path, tmp_path: Path
) -> None:
    out = tuned if encoder == VIT else tmp_path / "cnn"
    if encoder != VIT:
        tune(encoder, data, out)
    seen = looks(out)
    assert seen[0]["step"] == 0
    assert seen[0]["val_top1"] <= 50.0
    assert max(row["val_top1"] for row in seen) >= 88.0
    found = record(out)
    assert found["validation"]["val_top1"] == pytest.approx(max(row["val_top1"] for row in seen), abs=1e-3)
    assert found["images"] == {"train": 72, "validation": 18}
    assert found["classes"] == list(labelled.KINDS)
    assert found["calibration"]["nll_after"] <= found["calibration"]["nll_before"]


def test_the_head_begins_as_the_linear_probe_of_frozen_features(several: Path, tmp_path: Path) -> None:
    """Colours can be read off the untrained network, so the first look finds what the probe found."""
    watch = Watching()
    tune(VIT, several, tmp_path / "run", epochs=1, watch=watch)
    assert watch.seen[0]["step"] == 0
    assert watch.seen[0]["val_map"] >= 95.0
    assert "head: linear probe on its frozen features, C = " in watch.why["init"]
    began = load_file(tmp_path / "run" / "init.safetensors")
    encoder = load_encoder(VIT)
    assert isinstance(encoder, TorchEncoder)
    assert all(torch.equal(began[f"backbone.{key}"], value) for key, value in encoder.backbone.net.state_dict().items())


def test_the_run_is_left_as_a_training_leaves_it_and_is_an_encoder(tuned: Path) -> None:
    folder = RunFolder(tuned)
    for path in (folder.config, folder.metrics, folder.checkpoint, folder.teacher, folder.environment, folder.init, folder.best):
        assert path.is_file(), path
    assert list(folder.tensorboard.iterdir())
    settings = config.load(TrainSettings, folder.config)
    assert settings.finetune is not None
    assert (settings.recipe, settings.objective.name, settings.finetune.best_by) == ("finetune", "supervised", "val_top1")
    encoder = load_encoder(str(tuned))
    assert encoder.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 32)
    losses = [row for row in read_jsonl(folder.metrics) if "loss" in row]
    assert {"train_top1", "feature_spread", "loss_over_chance", "lr"} <= losses[-1].keys()


def test_the_best_weights_are_kept_and_the_end_comes_when_they_are_old(data: Path, tmp_path: Path) -> None:
    """At a rate that destroys what was learnt."""
    watch = Watching()
    over = {"optimizer": {"learning_rate": 0.3, "warmup": 0.0}}
    done = tune(VIT, data, tmp_path / "run", over, epochs=30, patience=2, watch=watch)
    best = max(watch.seen, key=lambda row: (row["val_top1"], -row["val_loss"]))
    per_epoch = 72 // config.load(TrainSettings, tmp_path / "run" / "config.yaml").batch_size
    assert done["step"] == best["step"] + 2 * per_epoch < 30 * per_epoch
    assert done["best_step"] == record(tmp_path / "run")["step"] == best["step"]
    assert done["validation"]["val_top1"] == pytest.approx(best["val_top1"], abs=1e-3)
    left, last = (load_file(tmp_path / "run" / name) for name in ("teacher.safetensors", "checkpoint/latest.safetensors"))
    assert not torch.equal(left["backbone.pos_embed"], last["teacher.backbone.net.pos_embed"])


def test_with_freeze_the_backbone_stays_to_the_bit_and_the_head_learns(several: Path, tmp_path: Path) -> None:
    tune(CNN, several, tmp_path / "run", {"optimizer": {"learning_rate": 1e-3}}, epochs=2, freeze=True)
    began, last = (load_file(tmp_path / "run" / name) for name in ("init.safetensors", "checkpoint/latest.safetensors"))
    student = {
        key.removeprefix("student.").replace("backbone.net.", "backbone."): last[key] for key in last if key[:8] == "student."
    }
    changed = {key for key in began if not torch.equal(began[key], student[key])}
    assert changed == {"heads.image.weight", "heads.image.bias"}
    assert not any(key.startswith("optimizer.2.") for key in last)
    assert record(tmp_path / "run")["learns"] == "head"


def test_batch_norm_keeps_the_statistics_that_an_encoder_brings_and_takes_new_ones_where_it_brings_none(
    data: Path, tmp_path: Path
) -> None:
    torch.save(network("test_efficientnet").state_dict(), tmp_path / "ours.pt")
    for name, spec in (("brought", f"file/{tmp_path}/ours.pt?arch=test_efficientnet&size=32"), ("none", CNN)):
        tune(spec, data, tmp_path / name, epochs=1)
        began, last = (load_file(tmp_path / name / file) for file in ("init.safetensors", "checkpoint/latest.safetensors"))
        means = [key for key in began if key.endswith("running_mean")]
        same = [torch.equal(began[key], last["student." + key.replace("backbone.", "backbone.net.", 1)]) for key in means]
        assert means
        assert all(same) if name == "brought" else not any(same)
        weight = "backbone.bn1.weight"
        assert not torch.equal(began[weight], last["student.backbone.net.bn1.weight"])


# --- LoRA ------------------------------------------------------------------------------------------------------------


def test_merged_adapters_answer_as_those_beside_the_weights() -> None:
    from selfsight.models.backbones import BackboneSettings, build_backbone
    from selfsight.ssl.adapters import limit_to
    from selfsight.ssl.network import Network
    from selfsight.ssl.start import begin, plain
    from selfsight.ssl.tuning import TuningSettings

    torch.manual_seed(0)
    made = BackboneSettings(name="vit_w32_d2_p8", image_size=16)
    adapted, other = (Network(build_backbone(made), torch.nn.ModuleDict({"image": torch.nn.Linear(32, 3)})) for _ in range(2))
    before = {key: value.clone() for key, value in plain(adapted).items()}
    limit_to(adapted, TuningSettings(learns="adapters", lora=2))
    assert all(torch.equal(before[key], value) for key, value in plain(adapted).items())
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[-3] for name in learning if "lora" in name} == {"lora_A", "lora_B"}
    assert {name for name in learning if "lora" not in name} == {"heads.image.weight", "heads.image.bias"}
    assert len(learning) == 2 + 2 * 2 * 2  # two blocks, qkv and proj, A and B
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    begin(other, plain(adapted))
    images = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(plain(other)["backbone.blocks.0.attn.qkv.weight"], before["backbone.blocks.0.attn.qkv.weight"])
    torch.testing.assert_close(other([images]).logits, adapted([images]).logits)


def test_lora_trains_adapters_and_leaves_a_plain_network(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        tune(VIT, data, out, {"save_every_minutes": 1e-9}, epochs=3, lora=4, watch=Watching(12))
    done = api.finetune(out=out, resume=True)
    assert done["step"] == 27
    began, left = (load_file(out / name) for name in ("init.safetensors", "checkpoint/best.safetensors"))
    assert began.keys() == left.keys() == load_file(out / "teacher.safetensors").keys()
    last = load_file(out / "checkpoint" / "latest.safetensors")
    assert any("lora_A" in key for key in last)
    changed = {key for key in began if not torch.equal(began[key], left[key])}
    assert changed <= {f"backbone.blocks.0.attn.{name}.weight" for name in ("qkv", "proj")} | {
        "heads.image.weight",
        "heads.image.bias",
    }
    assert "backbone.blocks.0.attn.qkv.weight" in changed
    assert load_encoder(str(out)).encode(torch.zeros(1, 3, 16, 16)).shape == (1, 32)


def test_lora_without_peft_or_without_attention_says_so(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--lora 4: adapts the attention of a ViT, and test_efficientnet has none"):
        tune(CNN, data, tmp_path / "cnn", lora=4)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match=r"--lora: needs the package peft; install it with: pip install 'selfsight\[lora\]'"):
        tune(VIT, data, tmp_path / "vit", lora=4)
    assert not (tmp_path / "cnn").exists()
    assert not (tmp_path / "vit").exists()


# --- labels ----------------------------------------------------------------------------------------------------------


def test_lists_of_labels_are_learnt_and_predicted(several: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tune(VIT, several, out, epochs=2)
    assert done["validation"].keys() == {"val_loss", "val_map", "val_macro_f1", "val_accuracy"}
    assert done["validation"]["val_map"] >= 95.0
    assert record(out)["multi_label"] is True
    found = api.predict(out, several, tmp_path / "answers.parquet", device="cpu")
    assert found["accuracy"] >= 90.0
    table = pq.read_table(tmp_path / "answers.parquet").to_pydict()
    assert [name for name in table if name.startswith("p_")] == ["p_blue", "p_green", "p_red"]
    for row, predicted in enumerate(table["predicted"]):
        assert predicted == [name for name in ("blue", "green", "red") if table[f"p_{name}"][row] > 0.5]
        assert table["probability"][row] == max(table[f"p_{name}"][row] for name in ("blue", "green", "red"))
    one_each = tmp_path / "one_each"
    for name in ("blue", "green", "red"):
        (one_each / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), name).save(one_each / name / "0.png")
    watch = Watching()
    found = api.predict(out, one_each, tmp_path / "one.csv", device="cpu", watch=watch)
    assert "accuracy" not in found
    assert "label" not in (tmp_path / "one.csv").read_text().splitlines()[0].split(",")
    assert any("has one label an image or lists of them, unlike the classifier" in said for said in watch.said)
    api.predict(out, several, tmp_path / "answers.csv", device="cpu")
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"].split(";") if row["predicted"] else [] for row in rows] == table["predicted"]
    assert [row["label"].split(";") if row["label"] else [] for row in rows] == table["label"]


def test_classes_of_unlike_size_weigh_the_same_and_the_plan_says_so(tmp_path: Path) -> None:
    data = labelled.stripes(tmp_path / "data", (40, 5, 15))
    watch = Watching()
    tune(VIT, data, tmp_path / "run", epochs=1, watch=watch)
    settings = config.load(TrainSettings, tmp_path / "run" / "config.yaml")
    weights = getattr(settings.objective, "class_weights", None)
    assert weights == pytest.approx((48 / (3 * 32), 48 / (3 * 4), 48 / (3 * 12)), abs=1e-4)
    assert watch.why["objective.class_weights"] == "classes of 4 to 32 images: each weighs the same in the loss"
    assert settings.finetune is not None
    assert settings.finetune.best_by == "val_balanced_accuracy"


def test_weights_of_classes_and_mixtures_of_labels_in_the_loss() -> None:
    from selfsight.ssl.batch import Batch
    from selfsight.ssl.network import Seen
    from selfsight.ssl.objectives.supervised import Supervised, SupervisedSettings

    weights = (0.5, 2.0, 1.0)
    objective = Supervised(SupervisedSettings(classes=3, label_smoothing=0.2, class_weights=weights))
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    seen = Seen(logits, logits, logits[:, None], (1, 1))

    def loss(labels: torch.Tensor) -> float:
        return objective(seen, objective.targets(torch.nn.Identity(), Batch([], 4, labels=labels)), 0.0).value.item()

    log_p = torch.log_softmax(logits.double(), 1)
    single = [[-weights[k] * (0.8 * row[k] + 0.2 / 3 * row.sum()) for k in range(3)] for row in log_p]
    expected = sum(single[view * 4 + i][k] for view in range(2) for i, k in enumerate((0, 1, 2, 1))) / 8
    assert loss(torch.tensor([0, 1, 2, 1])) == pytest.approx(float(expected), rel=1e-5)
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    expected = (
        sum(float(mixed[i, k]) * single[view * 4 + i][k] for view in range(2) for i in range(4) for k in range(3)) / 6
    )  # one row has no label
    assert loss(mixed) == pytest.approx(float(expected), rel=1e-5)


def test_mixed_images_have_labels_in_the_same_shares() -> None:
    """Each image is of its own grey, so that what is in a mixture can be read off it."""
    from selfsight.ssl.mixing import Mixing, mix

    grey = torch.arange(4.0)
    views = [grey.repeat(2).view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()]
    for mixing in (Mixing(0.5, 0.0), Mixing(0.0, 1.0), Mixing(0.5, 1.0)):
        kinds = set()
        for step in range(12):
            made, targets = mix(mixing, views, torch.arange(4), 4, seed=3, step=step)
            torch.testing.assert_close(targets.sum(1), torch.ones(4))
            torch.testing.assert_close(made[0].mean((1, 2, 3)), (targets @ grey).repeat(2), atol=1e-5, rtol=0)
            again = mix(mixing, views, torch.arange(4), 4, seed=3, step=step)
            assert torch.equal(again[0][0], made[0])
            assert torch.equal(again[1], targets)
            kinds.add(bool((made[0].std((1, 2, 3)) > 1e-4).any()))
        assert kinds <= ({True, False} if mixing.cutmix else {False})
        assert (True in kinds) == (mixing.cutmix > 0)


def test_mixing_is_off_unless_asked_for_and_then_trains(data: Path, tuned: Path, tmp_path: Path) -> None:
    plain = config.load(TrainSettings, tuned / "config.yaml").objective
    assert plain.mixing is not None
    assert not plain.mixing.on
    done = tune(VIT, data, tmp_path / "run", epochs=2, mixup=0.2, cutmix=1.0)
    assert done["step"] == 18
    mixed = config.load(TrainSettings, tmp_path / "run" / "config.yaml").objective.mixing
    assert mixed is not None
    assert (mixed.mixup, mixed.cutmix) == (0.2, 1.0)


def test_a_class_without_a_validation_image_is_named_and_does_no_harm(data: Path, tmp_path: Path) -> None:
    lonely = labelled.stripes(tmp_path / "data", (12, 1, 12))
    watch = Watching()
    done = tune(VIT, lonely, tmp_path / "run", epochs=1, watch=watch)
    assert watch.said == ["note: 1 of 3 classes have no validation image (diagonal)"]
    assert np.isfinite(done["validation"]["val_balanced_accuracy"])
    assert record(tmp_path / "run")["classes"] == list(labelled.KINDS)


def test_a_validation_set_of_its_own_and_groups_that_stay_whole(tmp_path: Path) -> None:
    table = pictures.parquet(tmp_path / "train.parquet", 40, classes=2, column="patient")
    watch = Watching()
    tune("random/vit_w32_d1_p8?size=32", table, tmp_path / "groups", epochs=1, group_by="patient", watch=watch)
    assert record(tmp_path / "groups")["images"] == {"train": 30, "validation": 10}
    other = pictures.parquet(tmp_path / "other.parquet", 12, classes=2, seed=5)
    tune("random/vit_w32_d1_p8?size=32", table, tmp_path / "own", epochs=1, validation=other)
    assert record(tmp_path / "own")["images"] == {"train": 40, "validation": 12}
    shutil.copy(table, tmp_path / "copy.parquet")
    with pytest.raises(DataError, match=r"--validation .*copy.parquet: 8 groups of 'patient' also train, first 'group 0'"):
        tune("random/vit_w32_d1_p8?size=32", table, tmp_path / "both", validation=tmp_path / "copy.parquet", group_by="patient")


def test_a_source_that_names_its_splits_trains_on_its_training_rows_alone(tmp_path: Path) -> None:
    table = pq.read_table(pictures.parquet(tmp_path / "all.parquet", 40, classes=2))
    splits = ["train"] * 20 + ["val"] * 8 + ["test"] * 8 + ["shift.size"] * 4
    pq.write_table(table.append_column("split", pa.array(splits)), tmp_path / "named.parquet")
    source = open_source(tmp_path / "named.parquet")
    parts = parts_as_named(source, TuningSettings(), 0)
    assert [list(part.keys) for part in (parts.train, parts.validation)] == [list(source.keys[:20]), list(source.keys[20:28])]
    said = f"note: {source.location}: the rows 'train' of its column 'split' train; 'shift.size', 'test' take no part"
    assert (parts.held, parts.notes) == ("its rows 'val' of the column 'split'", [said])
    pictures.parquet(tmp_path / "other.parquet", 12, classes=2, seed=5)
    parts = parts_as_named(source, TuningSettings(validation=str(tmp_path / "other.parquet")), 0)
    assert (len(parts.train), len(parts.validation), parts.held) == (20, 12, "given")

    splits[20:28] = ["test"] * 8
    pq.write_table(table.append_column("split", pa.array(splits)), tmp_path / "named.parquet")
    watch = Watching()
    tune("random/vit_w32_d1_p8?size=32", tmp_path / "named.parquet", tmp_path / "run", epochs=1, watch=watch)
    assert record(tmp_path / "run")["images"] == {"train": 16, "validation": 4}
    assert watch.said == [said.replace(source.location, str(tmp_path / "named.parquet"))]
    api.finetune(out=tmp_path / "run", epochs=2, resume=True)
    assert record(tmp_path / "run")["images"] == {"train": 16, "validation": 4}

    # What took no part may judge; what did may not.
    named, run = str(tmp_path / "named.parquet"), str(tmp_path / "run")
    found = api.compare(named, ["pixels", run], tmp_path / "results", tasks=["knn"])
    assert (found.data.n_train, found.data.n_test) == (20, 16)
    with pytest.raises(DataError, match=r"has learnt the labels of .*named.parquet\?split=train"):
        api.compare(tmp_path / "other.parquet", ["pixels", run], tmp_path / "no", test=named, tasks=["knn"])

    one = pa.array(["train"] * 40)
    pq.write_table(table.append_column("split", one), tmp_path / "one.parquet")
    assert parts_as_named(open_source(tmp_path / "one.parquet"), TuningSettings(), 0).notes == []


def test_the_probe_of_a_mixture_learns_from_what_the_training_draws(tmp_path: Path) -> None:
    """Most of the images have wrong labels, and are hardly ever drawn."""
    right, wrong = labelled.stripes(tmp_path / "right", (12, 12, 12)), labelled.stripes(tmp_path / "wrong", (40, 40, 40), seed=1)
    for kind, other in zip(labelled.KINDS, ("down!", "across!", "diagonal!"), strict=True):
        (wrong / kind).rename(wrong / other)
    for folder in list(wrong.iterdir()):
        folder.rename(wrong / folder.name.rstrip("!"))
    held = labelled.stripes(tmp_path / "held", (12, 12, 12), seed=2)
    found = []
    for weight in (1e-6, 1e3):
        out = tmp_path / f"run{weight}"
        tune(VIT, {str(right): 1, str(wrong): weight}, out, epochs=0.1, validation=held)
        first = next(row for row in read_jsonl(out / "metrics.jsonl") if "val_top1" in row)
        assert first["step"] == 0
        found.append(first["val_top1"])
    assert found[0] > found[1] + 30, found


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_a_mixture_is_divided_within_its_shares_and_its_classes_must_agree(tmp_path: Path) -> None:
    few, many = labelled.stripes(tmp_path / "few", (5, 5, 5)), labelled.stripes(tmp_path / "many", (20, 20, 20), seed=1)
    source = open_source({str(few): 1, str(many): 1})
    parts = parts_of(source, TuningSettings(), 0)
    assert (len(parts.train), len(parts.validation)) == (60, 15)
    drawn = parts.train.draws(0, 0, np.arange(60)).indices
    assert sum(parts.train.keys[i].startswith("few/") for i in drawn) == 30
    (many / "across").rename(many / "Across")
    with pytest.raises(DataError, match="'across' in its part 'few' and 'Across' in 'many' differ in spelling alone"):
        parts_of(open_source([str(few), str(many)]), TuningSettings(), 0)


def test_images_of_one_class_or_none_are_refused(several: Path, data: Path, tmp_path: Path) -> None:
    one = pictures.parquet(tmp_path / "one.parquet", 8, classes=1)
    with pytest.raises(DataError, match=r"one.parquet: has images of 1 class; a classifier needs at least two"):
        tune(VIT, one, tmp_path / "run")
    plain = pictures.folder(tmp_path / "plain", 6, labelled=False)
    with pytest.raises(DataError, match="plain: has no labels; expected a sub-folder for each class"):
        tune(VIT, plain, tmp_path / "run")
    with pytest.raises(DataError, match=r"--validation .*stripes: class 'across' is not among the training classes blue"):
        tune(VIT, several, tmp_path / "run", validation=data)
    single = labelled.stripes(tmp_path / "single", (1, 1, 1))
    with pytest.raises(DataError, match=r"single: has 3 images, each alone in its class.*give --validation"):
        tune(VIT, single, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("pixels", "encoder pixels: it has no weights; expected runs/NAME"),
        (VIT + "&pool=mean", "fine-tuning trains on what the network sums up by itself, not on pool=mean; leave pool out"),
        (VIT + "&pool=cls+mean", "leave pool out"),
    ],
)
def test_encoders_that_cannot_be_fine_tuned_say_why(encoder: str, message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        tune(encoder, data, tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_does_not_go_together_is_one_line(
    data: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    for arguments, message in (
        (["finetune", "--out", out], "expected ENCODER and DATA"),
        (["finetune", VIT, str(data), "--out", out, "--freeze", "--lora", "4"], "--freeze: the head alone learns"),
        (["finetune", VIT, str(data), "--out", str(tuned)], "holds a run already"),
        (["finetune", "--out", out, "--resume"], "is no run to resume"),
        (["train", str(data), "--out", out, "--recipe", "finetune", "--init", VIT], "take the verb: selfsight finetune"),
        (["train", "--out", str(tuned), "--resume"], f"go on with: selfsight finetune --out {tuned} --resume"),
        (["finetune", "--out", str(tuned), "--resume", "--freeze"], "finetune.learns: a resumed run keeps it as it is (all)"),
        (["predict", out, str(data), "--out", f"{out}.csv"], "holds no classifier.json"),
        (["predict", str(tuned), str(data), "--out", f"{out}.txt"], "expected a file that ends in .parquet or .csv"),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        told = capsys.readouterr().err
        assert left.value.code == 2, told
        assert message in told
        assert len(told.strip().splitlines()) == 1, told
    assert not (tmp_path / "run").exists()


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    tune(VIT, data, out, {"backbone": {"drop_path": 0.1}}, epochs=6, mixup=0.4)
    return out


@pytest.mark.timeout(300)
def test_a_kill_at_a_random_moment_leaves_the_bits_of_a_run_that_was_let_alone(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    pairs = ["threads=1", "workers=0", "backbone.drop_path=0.1", "save_every_minutes=1e-9"]
    sets = [word for pair in pairs for word in ("--set", pair)]
    arguments = ["finetune", VIT, str(data), "--out", str(out), "--epochs", "6", "--mixup", "0.4", "--device", "cpu", *sets]
    process = start(arguments)
    while process.poll() is None and not read_jsonl(out / "metrics.jsonl"):
        time.sleep(0.005)
    delay = draw.randrange(400)
    time.sleep(delay / 1000)
    process.kill()
    process.communicate(timeout=60)
    arguments = ["finetune", "--out", str(out), "--resume"]
    process = start(arguments)
    told, error = process.communicate(timeout=100)
    repeat = f"seed {seed}: killed {delay} ms after the first row"
    assert process.returncode == 0, f"{told}\n{error}"
    assert differing(out, uninterrupted) == [], repeat
    steps = [row["step"] for row in looks(out)]
    assert steps == [row["step"] for row in looks(uninterrupted)], repeat
    assert [row["val_loss"] for row in looks(out)] == [row["val_loss"] for row in looks(uninterrupted)], repeat
    ours, theirs = record(out), record(uninterrupted)
    assert ours == theirs, repeat


@pytest.mark.parametrize("step", [9, 13])
def test_a_run_broken_off_at_the_end_of_an_epoch_or_within_one_looks_at_every_epoch_once(
    step: int, data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        over = {"backbone": {"drop_path": 0.1}, "save_every_minutes": 1e-9}
        tune(VIT, data, out, over, epochs=6, mixup=0.4, watch=Watching(step + 1))
    api.finetune(out=out, resume=True)
    assert differing(out, uninterrupted) == []
    assert [row["step"] for row in looks(out)] == [9 * epoch for epoch in range(7)]


def test_seed_and_limit_given_as_settings_divide_the_images_the_same_way_after_a_resume(data: Path, tmp_path: Path) -> None:
    tune(VIT, data, tmp_path / "run", {"seed": 3, "limit": 60, "finetune": {"share": 0.25}}, epochs=1)
    assert record(tmp_path / "run")["images"] == {"train": 45, "validation": 15}
    before = record(tmp_path / "run")
    api.finetune(out=tmp_path / "run", resume=True)
    assert record(tmp_path / "run") == before


def test_a_finished_run_goes_on_for_longer_and_not_at_all_for_as_long(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tune(VIT, data, out, epochs=1)
    before = (out / "checkpoint" / "latest.safetensors").read_bytes()
    (out / "classifier.json").unlink()
    assert api.finetune(out=out, resume=True)["step"] == 9
    assert (out / "checkpoint" / "latest.safetensors").read_bytes() == before
    assert [row["step"] for row in looks(out)] == [0, 9]
    assert record(out)["images"]["train"] == 72
    watch = Watching()
    assert api.finetune(VIT, data, out, epochs=2, patience=3, resume=True, watch=watch)["step"] == 18
    assert watch.said[0].startswith("changed: epochs 1.0 -> 2.0, finetune.patience 5.0 -> 3.0")


# --- predicting ------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_network_at_its_temperature(data: Path, tuned: Path, tmp_path: Path) -> None:
    found = api.predict(tuned, data, tmp_path / "answers.parquet", device="cpu", batch_size=7)
    table = pq.read_table(tmp_path / "answers.parquet").to_pydict()
    encoder = load_encoder(str(tuned))
    head = load_file(tuned / "teacher.safetensors")
    images = torch.stack([encoder.prepare(Image.open(data / key).convert("RGB")) for key in table["key"]])
    logits = encoder.encode(images) @ head["heads.image.weight"].T + head["heads.image.bias"]
    expected = torch.softmax(logits.double() / record(tuned)["temperature"], 1)
    given = torch.tensor([table[f"p_{name}"] for name in labelled.KINDS], dtype=torch.float64).T
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)
    assert table["predicted"] == [labelled.KINDS[k] for k in expected.argmax(1)]
    assert table["probability"] == given.max(1).values.tolist()
    assert table["label"] == [Path(key).parent.name for key in table["key"]]
    right = np.mean([a == b for a, b in zip(table["predicted"], table["label"], strict=True)]) * 100
    assert found["top1"] == pytest.approx(right)
    assert found["low"] <= found["top1"] <= found["high"]
    assert sum(found["answers"].values()) == found["images"] == 90


def test_bad_images_are_listed_and_foreign_labels_are_not_compared(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = labelled.stripes(tmp_path / "mine", (3, 0, 3))
    (images / "diagonal").rmdir()
    (images / "across").rename(images / "left")
    (images / "down" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(SystemExit) as left:
        main(["predict", str(tuned), str(images), "--out", str(tmp_path / "a.csv"), "--device", "cpu", "--max-bad", "50"])
    told = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    assert "class 'left' is not among the training classes across, diagonal, down; its labels are not compared" in told
    assert "1 files left out, listed in" in told
    assert "accuracy" not in told
    assert [row["key"] for row in read_jsonl(tmp_path / "a.csv.bad_images.jsonl")] == ["down/broken.png"]
    with (tmp_path / "a.csv").open() as file:
        assert csv.DictReader(file).fieldnames == ["key", "predicted", "probability", *(f"p_{name}" for name in labelled.KINDS)]
    with pytest.raises(InputError, match="--strict stops at the first"):
        api.predict(tuned, images, tmp_path / "b.csv", device="cpu", strict=True)
    assert not (tmp_path / "b.csv").exists()


def test_images_that_cannot_be_read_are_left_out_of_both_parts_and_listed(tmp_path: Path) -> None:
    data = labelled.stripes(tmp_path / "data", (10, 10, 10))
    for number in range(4):
        (data / "down" / f"broken{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = tune(VIT, data, tmp_path / "run", epochs=2, max_bad=50.0)
    listed = {row["key"] for row in read_jsonl(tmp_path / "run" / "bad_images.jsonl")}
    assert listed == {f"down/broken{number}.png" for number in range(4)}
    assert done["bad_images"] == 4


def test_a_head_that_does_not_fit_its_record_is_an_error(tuned: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "teacher.safetensors"):
        (tmp_path / "run" / name).write_bytes((tuned / name).read_bytes())
    told = record(tuned)
    (tmp_path / "run" / "classifier.json").write_text(json.dumps(told | {"classes": [*told["classes"], "more"]}))
    with pytest.raises(WeightsError, match=r"teacher.safetensors holds no head for 4 classes"):
        api.predict(tmp_path / "run", data, tmp_path / "a.csv")
