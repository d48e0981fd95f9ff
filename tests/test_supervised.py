"""Training with labels beside training without, for a ViT and a CNN."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import pictures
from objective_cases import CASES
from selfsight import api, config
from selfsight.cli import main
from selfsight.errors import DataError
from selfsight.ssl.batch import Batch
from selfsight.ssl.network import Seen
from selfsight.ssl.objectives.supervised import Supervised, SupervisedSettings
from selfsight.ssl.recipes import RECIPES, Facts, as_tree
from selfsight.ssl.settings import TrainSettings

QUICK = {"batch_size": 8, "threads": 1, "workers": 0, "log_every": 1, "views": {"local_count": 0}}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("labelled") / "data", 24, classes=2)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.1) -> tuple[float, dict[str, float]]:
    objective = Supervised(SupervisedSettings(classes=logits.shape[1], label_smoothing=smoothing))
    targets = objective.targets(torch.nn.Identity(), Batch([], len(labels), labels=labels))
    loss = objective(Seen(logits, logits, logits[:, None], (1, 1)), targets, 0.5)
    return loss.value.item(), {name: float(value) for name, value in loss.diagnostics.items()}


def test_the_loss_is_the_smoothed_cross_entropy_of_labelled_views_alone() -> None:
    logits, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, -1, 2, 1])
    total = 0.0
    for view in range(2):
        for place, label in enumerate(labels.tolist()):
            if label >= 0:
                log_p = F.log_softmax(logits[view * 4 + place].double(), 0).tolist()
                total -= sum((0.9 * (k == label) + 0.1 / 3) * p for k, p in enumerate(log_p))
    value, diagnostics = loss_of(logits, labels)
    assert value == pytest.approx(total / 6, rel=1e-5)
    assert diagnostics["labelled"] == pytest.approx(0.75)


def test_a_batch_without_a_label_has_the_loss_0_and_moves_nothing() -> None:
    learner = CASES["supervised"].learner()
    batch = CASES["supervised"].batch(0)
    assert batch.labels is not None
    batch.labels.fill_(-1)
    targets = learner.objective.targets(learner.teacher, batch)
    loss = learner.objective(learner.objective.predictions(learner.student, batch), targets, 0.5)
    assert loss.value.item() == 0.0
    loss.value.backward()
    assert all(p.grad is None or not p.grad.any() for p in learner.student.parameters())
    assert any(p.grad is not None for p in learner.student.parameters())


def test_right_answers_are_counted_in_percent() -> None:
    labels = torch.tensor([0, 1, -1])
    logits = F.one_hot(torch.tensor([0, 0, 0, 0, 1, 1]), 2).float() * 30
    value, diagnostics = loss_of(logits, labels, smoothing=0.0)
    assert diagnostics["train_top1"] == pytest.approx(75.0)
    assert value == pytest.approx(30 / 4, rel=1e-4)


@pytest.mark.parametrize("side", [32, 400])
@pytest.mark.parametrize("name", ["vit_w32_d1_p8", "resnet10t"])
def test_the_recipe_names_the_classes_of_the_data_and_looks_at_whole_images(side: int, name: str) -> None:
    tree = as_tree(RECIPES["supervised"](Facts(1000, side, False, 2, classes=7), name))
    assert tree["objective"] == {"name": "supervised", "classes": 7}
    assert (tree["views"]["local_count"], tree["views"]["solarize"]) == (0, 0.0)
    assert tree["teacher_momentum"] == tree["final_teacher_momentum"] == 0.99
    settings = config.build(TrainSettings, tree | {"recipe": "supervised", "data": "x", "images": 1000}, "recipe")
    assert settings.objective.name == "supervised"


def test_images_without_labels_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures.folder(tmp_path / "plain", 12, labelled=False)
    with pytest.raises(SystemExit) as left:
        main(["train", str(data), "--out", str(tmp_path / "run"), "--recipe", "supervised"])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert "have no labels" in said
    assert "expected a sub-folder for each class" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_vit_and_cnn_with_labels_and_without_are_compared(labelled: Path, tmp_path: Path) -> None:
    encoders = []
    for backbone in ("vit_w32_d1_p8", "test_efficientnet"):
        for recipe in ("dino", "supervised"):
            out = tmp_path / f"{recipe}-{backbone}"
            done = api.train(labelled, out, recipe=recipe, backbone=backbone, epochs=2, device="cpu", set=QUICK)
            assert math.isfinite(done["loss"])
            encoders.append(str(out))
    with pytest.raises(DataError, match=r"has learnt the labels of .*, and the test images are among them; give --test images"):
        api.compare(labelled, encoders, tmp_path / "results", tasks=["knn"], device="cpu")
    assert not (tmp_path / "results").exists()
    held = pictures.folder(tmp_path / "held", 24, classes=len(list(labelled.iterdir())), seed=1)
    results = api.compare(labelled, encoders, tmp_path / "results", test=held, tasks=["knn"], device="cpu")
    assert [encoder.spec for encoder in results.encoders] == encoders
    assert {score.encoder for score in results.scores} == set(encoders)
    assert results.verdict is not None


def test_the_encoder_that_a_labelled_run_leaves_has_the_batch_norm_of_its_student() -> None:
    from selfsight.models.backbones import BackboneSettings, build_backbone
    from selfsight.ssl.network import Network, make_teacher
    from selfsight.ssl.optimizer import make_optimizer
    from selfsight.ssl.step import Learner, train_step

    objective = Supervised(SupervisedSettings(classes=3))
    settings = BackboneSettings(name="test_efficientnet", image_size=32)
    student, teacher = (Network(backbone := build_backbone(settings), objective.heads(backbone.width)) for _ in range(2))
    learner = Learner(student, make_teacher(student, teacher), objective, make_optimizer(student, torch.device("cpu")))
    before = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    train_step(learner, CASES["supervised"].batch(0), CASES["supervised"].rates(0.5), 3.0)
    for name, buffer in student.named_buffers():
        assert torch.equal(dict(teacher.named_buffers())[name], buffer), name
    assert any(not torch.equal(buffer, before[name]) for name, buffer in teacher.named_buffers())
