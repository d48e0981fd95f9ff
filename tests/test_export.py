"""Encoders in other libraries: each network through each target and back, then what is particular to one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import Conv2dSame
from timm.models.eva import Eva
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from exported_networks import photographs, run
from selfsight import api, load_encoder
from selfsight.cli import main
from selfsight.encoders import TorchEncoder, parse_spec
from selfsight.encoders.deployed import Head
from selfsight.encoders.export import TARGETS, Target, export_encoder, positions
from selfsight.encoders.preprocess import Preprocess
from selfsight.errors import InputError, SelfsightError, WeightsError
from selfsight.models.backbones import BackboneSettings, wrap
from selfsight.models.positions import interpolate_antialiased, interpolate_published

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN: dict[str, Any] = {"name": "vit_w32_d2_p8", "image_size": 32}
RUNS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "registers": PLAIN | {"registers": 2, "layer_scale": 0.1},
    "rotary": PLAIN | {"registers": 1, "rope": True, "rope_rescale": 2.0},
    "scaled": PLAIN | {"layer_scale": 0.1},
    "channels": PLAIN | {"channels": 2},
    "stem": {"name": "vit_w32_d1_p4_conv", "image_size": 16},
}
CASES: dict[str, tuple[str, str | None]] = {
    "plain": ("runs/{}/plain", "ViTModel"),
    "plain at another size": ("runs/{}/plain?size=48", "ViTModel"),
    "plain, untrained": ("runs/{}/plain?weights=init&pool=mean", "ViTModel"),
    "registers at another size": ("runs/{}/registers?size=48", "Dinov2WithRegistersModel"),
    "layer scale": ("runs/{}/scaled", "Dinov2Model"),
    "rotary": ("runs/{}/rotary?pool=mean&interpolation=bilinear&crop=0.8", "DINOv3ViTModel"),
    "CNN": ("random/test_efficientnet?size=64", None),
    "CNN with the padding of TensorFlow": ("random/tf_mobilenetv3_small_minimal_100?size=64&pool=gem", None),
}
"""A spec, and the class of transformers that holds it."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, backbone in RUNS.items():
        run(folder / name, backbone)
    return folder


def spec_of(case: str, runs: Path) -> str:
    return CASES[case][0].format(runs)


def encoder_of(spec: str) -> TorchEncoder:
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    return encoder


def prepared(encoder: TorchEncoder, folder: Path) -> Tensor:
    return torch.stack([encoder.prepare(picture) for picture in photographs(folder)])


def built(net: nn.Module, size: int, head: Head | None = None) -> TorchEncoder:
    """A network of timm as an encoder, under the name of another."""
    settings = BackboneSettings(name="test_efficientnet", image_size=size)
    return TorchEncoder("random/test_efficientnet", wrap(net, settings), Preprocess(size), None, "drawn", head)


def no_card(encoder: TorchEncoder, target: Target, difference: float | None, notes: list[str]) -> str:
    return ""


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestRoundTrip:
    @pytest.mark.parametrize("case", CASES)
    def test_timm(self, case: str, runs: Path, tmp_path: Path) -> None:
        spec, out = spec_of(case, runs), tmp_path / "net"
        made = api.export(spec, "timm", out)
        assert made["difference"] <= 1e-6
        assert left_in(out) == ["README.md", "config.json", "model.safetensors"]
        ours, again = encoder_of(spec), encoder_of(f"timm/local-dir:{out}")
        images = prepared(ours, tmp_path / "jpegs")
        assert torch.equal(again.encode(images), ours.encode(images))
        assert (again.prepare, again.pool, again.read) == (ours.prepare, ours.pool, ours.read)
        with torch.no_grad():
            net = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0).eval()
            transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=net))
            seen = net(torch.stack([transform(picture) for picture in photographs(tmp_path / "jpegs")]))
        tokens = ours.tokens(images)
        expected = tokens.pooled if tokens.cls is None or ours.pool == "mean" else tokens.cls
        torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        "case", [case for case, (spec, _) in CASES.items() if "?" in spec and "init" not in spec and "gem" not in spec]
    )
    def test_onnx(self, case: str, runs: Path, tmp_path: Path) -> None:
        spec, out = spec_of(case, runs), tmp_path / "net.onnx"
        made = api.export(spec, "onnx", out)
        assert made["difference"] <= 1e-4
        assert left_in(tmp_path) == ["net.md", "net.onnx"]
        assert "any size" in made["notes"][0]
        ours, again = encoder_of(spec), load_encoder(f"onnx/{out}")
        images = prepared(ours, tmp_path / "jpegs")
        torch.testing.assert_close(again.encode(images), ours.encode(images), rtol=1e-4, atol=1e-4)
        assert (again.prepare, again.notes, again.feature_width) == (ours.prepare, [], ours.feature_width)
        session, random = onnxruntime.InferenceSession(out), torch.Generator().manual_seed(0)
        height, width = ours.prepare.shape
        for batch, tall, wide in [(1, height, width), (5, height, width + 32), (2, height + 64, width), (3, 40, 40)]:
            images = torch.randn(batch, 3, tall, wide, generator=random)
            features = session.run(["features"], {"image": images.numpy()})[0]
            torch.testing.assert_close(torch.from_numpy(features), ours.encode(images), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("case", CASES)
    def test_transformers(self, case: str, runs: Path, tmp_path: Path) -> None:
        spec, out, kind = spec_of(case, runs), tmp_path / "net", CASES[case][1]
        if kind is None:
            with pytest.raises(WeightsError, match=r"no layout of transformers fits, it is of timm's class .*there are ViTModel"):
                api.export(spec, "transformers", out)
            assert left_in(tmp_path) == []
            return
        assert api.export(spec, "transformers", out)["difference"] <= 1e-6
        ours, net = encoder_of(spec), AutoModel.from_pretrained(out).eval()
        assert type(net).__name__ == kind
        images = photographs(tmp_path / "jpegs")
        batch = torch.stack([ours.prepare(image) for image in images])
        with torch.no_grad():
            seen = net(batch)
        tokens = ours.tokens(batch)
        torch.testing.assert_close(seen.pooler_output, tokens.cls, rtol=1e-6, atol=1e-6)
        first = 1 if tokens.registers is None else 1 + tokens.registers.shape[1]
        torch.testing.assert_close(seen.last_hidden_state[:, first:], tokens.patches, rtol=1e-6, atol=1e-6)
        again = encoder_of(f"hf/{out}?pool={ours.pool}")
        assert torch.equal(again.encode(batch), ours.encode(batch))
        assert again.prepare == ours.prepare


class TestTimm:
    def test_what_it_says_of_the_network(self, runs: Path, tmp_path: Path) -> None:
        api.export(f"runs/{runs}/registers?size=48&crop=0.9", "timm", tmp_path / "net")
        told = json.loads((tmp_path / "net" / "config.json").read_text())
        assert (told["architecture"], told["num_features"], told["global_pool"]) == ("vit_tiny_patch16_224", 32, "token")
        assert told["model_args"] == {
            "img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 1, "init_values": 0.1, "reg_tokens": 2,
            "no_embed_class": True, "global_pool": "token", "fc_norm": False,
        }  # fmt: skip
        prepare = {key: told["pretrained_cfg"][key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std")}
        mean, std = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
        assert prepare == {"input_size": [3, 48, 48], "interpolation": "bicubic", "crop_pct": 0.9, "mean": mean, "std": std}

    def test_a_new_classifier_and_a_training_can_begin_with_it(
        self, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.export(f"runs/{runs}/rotary", "timm", tmp_path / "net")
        net = timm.create_model(f"local-dir:{tmp_path}/net", pretrained=True, num_classes=5)
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
        monkeypatch.chdir(tmp_path)
        again = encoder_of("timm/local-dir:net")
        assert again.backbone.settings.name == "vit_w32_d2_p8"
        assert again.backbone.settings.rope
        assert parse_spec("timm/local-dir:net?pool=mean").absolute == f"timm/local-dir:{tmp_path}/net?pool=mean"

    def test_pools_of_ours_alone_are_named(self, runs: Path, tmp_path: Path) -> None:
        made = api.export(f"runs/{runs}/plain?pool=cls+mean", "timm", tmp_path / "net")
        assert made["notes"] == ["timm has no pool 'cls+mean': its network's output is that of pool 'token'"]
        assert load_encoder(f"timm/local-dir:{tmp_path}/net").feature_width == 64

    def test_channels(self, runs: Path, tmp_path: Path) -> None:
        api.export(f"runs/{runs}/channels", "timm", tmp_path / "net")
        ours, again = encoder_of(f"runs/{runs}/channels"), encoder_of(f"timm/local-dir:{tmp_path}/net")
        images = torch.stack([ours.prepare(np.full((40, 50, 2), 90, np.uint8))])
        assert torch.equal(again.encode(images), ours.encode(images))
        assert (again.prepare, again.read.channels) == (ours.prepare, 2)

    def test_a_folder_that_timm_wrote_itself(self, tmp_path: Path) -> None:
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 1, "dynamic_img_size": True}
        net, out = timm.create_model("vit_tiny_patch16_224", num_classes=7, **sizes).eval(), str(tmp_path / "theirs")
        data = {"input_size": (3, 32, 32), "crop_pct": 1.0}
        timm.models.save_for_hf(net, out, safe_serialization=True, model_args=sizes, data_config=data)
        encoder = encoder_of(f"timm/local-dir:{tmp_path}/theirs")
        assert any("head set aside: head.bias, head.weight" in note for note in encoder.notes), encoder.notes
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(encoder.encode(images), net.forward_features(images)[:, 0])
        assert (encoder.prepare.size, encoder.prepare.mean) == (32, (0.5, 0.5, 0.5))

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("config.json", None, r"is no folder of timm; expected one with config.json and model.safetensors"),
            ("config.json", "{", r"config.json: is no JSON"),
            ("config.json", "[]", r"config.json: has no 'architecture'; expected a config.json that timm wrote"),
            ("config.json", '{"architecture": "vit_9", "pretrained_cfg": {}}', r"this version of timm has no network 'vit_9'"),
            (
                "config.json",
                '{"architecture": "resnet18", "pretrained_cfg": {}}',
                r"says no preprocessing \(KeyError\('input_size'\)\)",
            ),
        ],
    )
    def test_errors_of_folders(self, runs: Path, tmp_path: Path, name: str, text: str | None, message: str) -> None:
        api.export(f"runs/{runs}/plain", "timm", tmp_path / "net")
        (tmp_path / "net" / name).unlink() if text is None else (tmp_path / "net" / name).write_text(text)
        with pytest.raises(WeightsError, match=message) as raised:
            load_encoder(f"timm/local-dir:{tmp_path}/net")
        assert "\n" not in str(raised.value)

    def test_weights_of_another_network(self, runs: Path, tmp_path: Path) -> None:
        for name in ("plain", "registers"):
            api.export(f"runs/{runs}/{name}", "timm", tmp_path / name)
        (tmp_path / "registers" / "model.safetensors").replace(tmp_path / "plain" / "model.safetensors")
        with pytest.raises(WeightsError, match=r"unexpected: .*config.json are not of the same network\."):
            load_encoder(f"timm/local-dir:{tmp_path}/plain")


class TestTransformers:
    def test_its_processor_prepares_pictures_alike(self, runs: Path, tmp_path: Path) -> None:
        api.export(f"runs/{runs}/plain?crop=0.8", "transformers", tmp_path / "net")
        ours = encoder_of(f"runs/{runs}/plain?crop=0.8")
        picture = photographs(tmp_path / "jpegs")[0].resize((64, 48))  # of which an even rest is cut away
        processed = AutoImageProcessor.from_pretrained(tmp_path / "net")(images=picture, return_tensors="pt")["pixel_values"]
        levels = (processed[0] - ours.prepare(picture)).abs().amax((1, 2)) * torch.tensor(ours.prepare.std) * 255
        assert float(levels.max()) <= 1.5

    def test_without_it_the_export_is_written_and_says_so(
        self, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(SystemExit) as done:
            main(["export", f"runs/{runs}/plain", "--to", "transformers", "--out", str(tmp_path / "net")])
        assert done.value.code == 0
        assert "not verified: transformers is not installed; pip install 'selfsight[transformers]'" in capsys.readouterr().out
        assert "not verified" in (tmp_path / "net" / "README.md").read_text()
        assert "embeddings.cls_token" in load_file(tmp_path / "net" / "model.safetensors")


class TestOnnx:
    def test_other_outputs_and_what_the_file_says_of_itself(self, runs: Path, tmp_path: Path) -> None:
        out = tmp_path / "net.onnx"
        api.export(f"runs/{runs}/channels", "onnx", out)
        ours = encoder_of(f"runs/{runs}/channels")
        images = torch.randn(3, 2, 32, 40, generator=torch.Generator().manual_seed(0))
        tokens = ours.tokens(images)
        patches = onnxruntime.InferenceSession(out).run(["patches"], {"image": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(patches), tokens.patches, rtol=1e-4, atol=1e-4)
        mean = load_encoder(f"onnx/{out}?output=patches")
        assert (mean.pool, mean.read.channels) == ("mean", 2)
        torch.testing.assert_close(mean.encode(images), tokens.pooled, rtol=1e-4, atol=1e-4)
        again = load_encoder(f"onnx/{out}?mean=.1,.1&size=40")
        assert (again.prepare.mean, again.prepare.std, again.input_size) == ((0.1, 0.1), ours.prepare.std, 40)
        told = json.loads({entry.key: entry.value for entry in onnx.load(out).metadata_props}["selfsight"])
        assert (told["weights"], told["backbone"]["name"], told["licences"]) == ("selfsight run channels", "vit_w32_d2_p8", [""])
        assert b"site-packages" not in out.read_bytes()
        assert str(runs).encode() not in out.read_bytes()

    def test_a_convolutional_stem_and_pictures_that_are_not_square(self, runs: Path, tmp_path: Path) -> None:
        spec, out = f"runs/{runs}/stem?size=16&aspect=keep", tmp_path / "net.onnx"
        assert "any size" in api.export(spec, "onnx", out)["notes"][0]
        ours, again = encoder_of(spec), load_encoder(f"onnx/{out}")
        assert again.prepare == ours.prepare
        images = ours.prepare(photographs(tmp_path / "jpegs")[0])[None]
        assert images.shape == (1, 3, 16, 20)
        torch.testing.assert_close(again.encode(images), ours.encode(images), rtol=1e-4, atol=1e-4)
        for to in ("timm", "transformers"):
            with pytest.raises(WeightsError, match=r"keeps the preprocessing of square pictures alone.*takes 16 x 24 px"):
                api.export(f"runs/{runs}/plain?size=16x24", to, tmp_path / to)

    def test_a_deployed_head_and_the_padding_of_tensorflow(self, tmp_path: Path) -> None:
        net = timm.create_model("test_efficientnet", num_classes=0, pad_type="same")
        assert any(isinstance(module, Conv2dSame) for module in net.modules())
        ours, out = built(net, 64, Head(torch.randn(2, 256), torch.ones(2), ("cat", "dog"))), tmp_path / "net.onnx"
        export_encoder(ours, "onnx", out, no_card)
        session = onnxruntime.InferenceSession(out)
        for height, width in [(64, 64), (65, 71), (96, 33)]:
            images = torch.randn(2, 3, height, width)
            features = session.run(["features"], {"image": images.numpy()})[0]
            torch.testing.assert_close(torch.from_numpy(features), ours.encode(images), rtol=1e-4, atol=1e-4)
        assert load_encoder(f"onnx/{out}?pool=logits").classes == ("cat", "dog")
        for to in ("timm", "transformers"):
            with pytest.raises(WeightsError, match=rf"{to} gets the network without its head; leave 'pool' out, or export it"):
                export_encoder(ours, to, tmp_path / to, no_card)

    def test_transformers_that_are_built_for_a_size_keep_it(self, tmp_path: Path) -> None:
        ours, out = (
            built(Eva(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=1, num_classes=0), 32),
            tmp_path / "n.onnx",
        )
        assert "pictures of 32 px alone" in export_encoder(ours, "onnx", out, no_card).notes[0]
        again, images = load_encoder(f"onnx/{out}"), torch.randn(3, 3, 32, 32)
        torch.testing.assert_close(again.encode(images), ours.encode(images), rtol=1e-4, atol=1e-4)
        with pytest.raises(WeightsError, match=r"the graph is made for 32 pixels; leave out 'size'"):
            load_encoder(f"onnx/{out}?size=56")
        with pytest.raises(WeightsError, match="no layout of transformers fits, its positions are not those of DINOv3"):
            export_encoder(ours, "transformers", tmp_path / "other", no_card)

    def test_metadata_of_something_else(self, runs: Path, tmp_path: Path) -> None:
        out = tmp_path / "net.onnx"
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("GlobalAveragePool", ["image"], ["map"])],
            "small",
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
            [onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, ["n", 3, 1, 1])],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        model.metadata_props.add(key="selfsight", value='{"weights": "ours"}')
        onnx.save(model, out)
        with pytest.raises(WeightsError, match=r"its metadata 'selfsight' are not those of an export \(KeyError"):
            load_encoder(f"onnx/{out}")


@pytest.mark.parametrize("trained", [4, 7])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (7, 9), (2, 3), (1, 11), (20, 5)])
def test_positions_as_matrices_are_the_published_interpolation(trained: int, grid: tuple[int, int]) -> None:
    table = torch.randn(1, 1 + trained**2, 8, generator=torch.Generator().manual_seed(0))
    for antialias, published in ((False, interpolate_published), (True, interpolate_antialiased)):
        found = positions.interpolate(table, 1, grid, antialias=antialias)
        torch.testing.assert_close(found, published(table, 1, grid), rtol=1e-5, atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize(
        ("spec", "to", "out", "message"),
        [
            ("runs/{}/plain", "tim", "x", "--to tim: there is no such form. Did you mean 'timm'?"),
            ("runs/{}/plain", "onnx", "x", "expected a file that ends in .onnx"),
            ("runs/{}/plain", "timm", "taken", "is there already; give another path or remove it"),
            ("runs/{}/plain", "onnx", "taken.onnx", "taken.md is there already"),
            ("runs/{}/stem", "timm", "x", "timm has no ViT with a convolutional stem as vit_w32_d1_p4_conv has; export"),
            ("runs/{}/stem", "transformers", "x", "no layout of transformers fits, it has a convolutional stem; there"),
            ("pixels", "timm", "x", "pixels: has no torch network to export; expected runs/NAME"),
        ],
    )
    def test_one_line_and_nothing_left(self, runs: Path, tmp_path: Path, spec: str, to: str, out: str, message: str) -> None:
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken.md").write_text("mine")
        with pytest.raises(InputError) as raised:
            api.export(spec.format(runs), to, tmp_path / out)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
        assert left_in(tmp_path) == ["taken", "taken.md"]

    @pytest.mark.parametrize("to", ["timm", "transformers"])
    def test_another_network_than_the_encoder_is_not_left_behind(
        self, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
    ) -> None:
        right = TARGETS[to]

        def spoilt(encoder: TorchEncoder, place: Path) -> list[str]:
            notes = right.write(encoder, place)
            tensors = load_file(place / "model.safetensors")
            name = next(name for name in tensors if name.endswith(("fc1.weight", "intermediate.dense.weight")))
            save_file(tensors | {name: tensors[name] * 1.1}, place / "model.safetensors", {"format": "pt"})
            return notes

        monkeypatch.setitem(TARGETS, to, right._replace(write=spoilt))
        with pytest.raises(
            SelfsightError, match=rf"{to} gives other features than the encoder \(largest difference .*allowed 1e-04"
        ):
            api.export(f"runs/{runs}/plain", to, tmp_path / "net")
        assert left_in(tmp_path) == []
