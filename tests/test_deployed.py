"""A network with its deployed head stands in a comparison as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper
from torch import nn

import labelled
import pictures
from encoder_files import CNN, VIT, network, onnx_file, run_folder
from selfsight import api
from selfsight.comparison.as_deployed import NOTE, columns
from selfsight.data.sources import open_source
from selfsight.encoders import extract, load_encoder
from selfsight.errors import DataError, WeightsError

CNN_SPEC = f"random/{CNN}?size=32"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def saved(path: Path, net: nn.Module) -> Path:
    torch.save(net.state_dict(), path)
    return path


@torch.no_grad()
def test_scores_are_those_of_the_whole_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cnn = timm.create_model(CNN, num_classes=5).eval()
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=64, depth=1, num_heads=2, num_classes=3).eval()
    images = torch.rand(2, 3, 32, 32)
    for net, arch, count in ((cnn, CNN, 5), (vit, "vit_w64_d1_p16", 3)):
        encoder = load_encoder(f"file/{saved(tmp_path / f'{count}.pt', net)}?arch={arch}&size=32&pool=logits")
        torch.testing.assert_close(encoder.encode(images), net(images), rtol=1e-4, atol=1e-5)
        assert (encoder.pool, encoder.classes, encoder.feature_shape) == ("logits", (), (count,))
        assert encoder.deployed
        assert not any(note.startswith("head set aside") for note in encoder.notes)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_the_head_sits_on_what_the_network_itself_pools(tmp_path: Path, name: str) -> None:
    """CLS, a mean with a norm behind it, a pool that was learnt."""
    torch.manual_seed(0)
    sizes = {"img_size": 56} if name.startswith("eva") else {}
    net = timm.create_model(name, num_classes=3, **sizes).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    size = 56 if sizes else 160
    encoder = load_encoder(f"file/{saved(tmp_path / 'h.pt', net)}?arch={name}&size={size}&pool=logits")
    images = torch.rand(2, 3, size, size)
    torch.testing.assert_close(encoder.encode(images), net(images), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_head_on_cls_and_patches_finds_its_pool(tmp_path: Path) -> None:
    backbone = network(VIT).state_dict()
    weight, path = torch.rand(4, 64), tmp_path / "both.pt"
    torch.save({f"backbone.{key}": tensor for key, tensor in backbone.items()} | {"head.weight": weight}, path)
    encoder = load_encoder(f"file/{path}?arch={VIT}&size=32&pool=logits&classes=a,b,c,d")
    below = load_encoder(f"file/{path}?arch={VIT}&size=32&pool=cls+mean")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder.encode(images), below.encode(images) @ weight.T)
    assert encoder.classes == ("a", "b", "c", "d")


def test_the_head_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for seed in (0, 1):
        torch.manual_seed(0)
        net = timm.create_model(CNN, num_classes=2)
        nn.init.constant_(net.get_classifier().bias, seed)
        spec = f"file/{saved(tmp_path / f'{seed}.pt', net)}?arch={CNN}&size=32&pool=logits"
        prints |= {load_encoder(spec).fingerprint, load_encoder(f"{spec}&classes=a,b").fingerprint}
    assert len(prints) == 4


def test_a_perfect_head_is_perfect_and_a_blind_one_at_chance(tmp_path: Path) -> None:
    """An ONNX file of a brightness threshold: light pictures are one class, dark ones the other."""
    for name, value in (("dark", 40), ("light", 220)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pictures.Image.new("RGB", (32, 32), (value + number % 5,) * 3).save(folder / f"{number}.png")
    kernel = np.stack([np.full((3, 8, 8), sign / 192, np.float32) for sign in (1, -1)])  # scores: light, dark
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    path = tmp_path / "threshold.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    names = tmp_path / "names.txt"
    names.write_text("light\ndark\n")
    right, blind = f"onnx/{path}?pool=logits&classes={names}", f"onnx/{path}?pool=logits&classes=dark,light"
    found = api.compare(tmp_path / "data", [right, blind, "pixels"], tmp_path / "out")
    scores = {(s.encoder, s.task, s.metric): s.value for s in found.scores}
    for task, metric in (("knn", "top1_k20"), ("linear", "top1")):
        assert scores[right, task, metric] == 100
        assert scores[blind, task, metric] == 0
        assert scores["pixels", task, metric] == 100
    assert found.provenance["notes"][right][-1] == NOTE
    assert {e.spec: e.pool for e in found.encoders}[right] == "logits"


def test_a_fine_tuned_run_answers_as_predict_does(tmp_path: Path) -> None:
    data = labelled.stripes(tmp_path / "stripes", (12, 12))
    run = tmp_path / "tuned"
    api.finetune(CNN_SPEC, data, run, epochs=1, freeze=True, device="cpu", set={"threads": 1, "workers": 0})
    api.predict(run, data, tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    spec = f"{run}?pool=logits"
    encoder = load_encoder(spec)
    source = open_source(data)
    scores = extract(encoder, source, device="cpu", cache=False).vectors
    assert encoder.classes == source.classes
    assert [encoder.classes[k] for k in scores.argmax(1)] == [row["predicted"] for row in rows]
    held = labelled.stripes(tmp_path / "held", (4, 4))
    found = api.compare(data, [spec, "pixels"], tmp_path / "out", test=held, tasks=["knn"])
    assert found.data.n_test == 8
    with pytest.raises(DataError, match=r"has learnt the labels of .*stripes, and the test images are among them; give --test"):
        api.compare(data, [spec, "pixels"], tmp_path / "own", tasks=["knn"])
    with pytest.raises(DataError, match="has learnt the labels of"):
        api.compare(held, [str(run), "pixels"], tmp_path / "own", test=data / "across", tasks=["knn"])
    with pytest.raises(DataError, match="is the training images or within them"):
        api.finetune(CNN_SPEC, data, tmp_path / "again", validation=data, device="cpu")
    with pytest.raises(WeightsError, match="'pool=logits' needs a classifier, and the run has none; make one with finetune"):
        load_encoder(f"{run_folder(tmp_path / 'birds')}?pool=logits")


def test_a_head_that_knows_more_classes_answers_among_those_at_hand() -> None:
    encoder = load_encoder("efficientnet-lite0?size=32&pool=logits")
    assert encoder.feature_width == 1000
    encoder.classes = tuple(f"c{number}" for number in range(1000))
    assert columns(encoder, ["c7", "c3"]).tolist() == [7, 3]
    with pytest.raises(DataError, match="its head knows no class 'cat' of the data; it knows c0, c1"):
        columns(encoder, ["c7", "cat"])
    encoder.classes = ()
    with pytest.raises(DataError, match="its head gives 1000 scores and the data has 2 classes; name the scores"):
        columns(encoder, ["a", "b"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("pool=logits", "needs a head of one linear layer; the file's head has 0 \\(none\\)"),
        ("classes=a,b", "'classes' names the scores of a deployed head; add pool=logits"),
    ],
)
def test_files_without_a_head(tmp_path: Path, options: str, said: str) -> None:
    path = saved(tmp_path / "a.pt", network(VIT))
    with pytest.raises(WeightsError, match=said):
        load_encoder(f"file/{path}?arch={VIT}&size=32&{options}")


def test_names_and_widths_that_do_not_fit(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(WeightsError, match=r"names\.txt' is no text file of class names"):
        load_encoder(f"onnx/{path}?pool=logits&classes={tmp_path}/names.txt")
    with pytest.raises(WeightsError, match="is no text file of class names"):
        load_encoder(f"onnx/{path}?pool=logits&classes={'x' * 300}")
    with pytest.raises(WeightsError, match="the head gives 7 scores, so 7 different names belong there; 'classes' are 2"):
        load_encoder(f"onnx/{path}?pool=logits&classes=a,b")
    torch.save(network(VIT).state_dict() | {"head.weight": torch.zeros(2, 33)}, tmp_path / "b.pt")
    with pytest.raises(WeightsError, match=r"the head takes 33 numbers, and no pool gives as many \(cls 32, mean 32, "):
        load_encoder(f"file/{tmp_path}/b.pt?arch={VIT}&size=32&pool=logits")
