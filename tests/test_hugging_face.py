"""Networks of transformers: its own features from its own files, the hub's cache, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BitImageProcessor, ViTImageProcessor

from encoder_files import hub_repository, pictures, transformers_folder
from selfsight.encoders import TorchEncoder, load_encoder, parse_spec
from selfsight.errors import WeightsError

TYPES = ["vit", "dinov2", "dinov2_with_registers", "dinov3_vit"]
DEPTH_OF_PREFIX = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 1}


def loaded(spec: str) -> TorchEncoder:
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    return encoder


def message(spec: str) -> str:
    with pytest.raises(WeightsError) as raised:
        load_encoder(spec)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{spec}: ")
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformers_folder(tmp_path_factory.mktemp("models") / "small", "dinov2")


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_features_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    path = transformers_folder(tmp_path / "model", model_type)
    encoder, theirs = loaded(f"hf/{path}?size=32"), AutoModel.from_pretrained(path).eval()
    images = torch.stack([encoder.prepare(picture) for picture in pictures(3)])
    expected = theirs(images).last_hidden_state
    tokens = encoder.tokens(images)
    torch.testing.assert_close(encoder.encode(images), expected[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens.patches, expected[:, DEPTH_OF_PREFIX[model_type] :], rtol=1e-4, atol=1e-4)
    assert encoder.pools[0] == "cls"
    assert encoder.weights == f"{path}, model.safetensors"


@torch.no_grad()
def test_rotary_positions_at_another_shape(tmp_path: Path) -> None:
    path = transformers_folder(tmp_path / "model", "dinov3_vit", num_register_tokens=4)
    encoder, theirs = loaded(f"hf/{path}?size=24x48"), AutoModel.from_pretrained(path).eval()
    images = torch.rand(2, 3, 24, 48)
    torch.testing.assert_close(encoder.encode(images), theirs(images).last_hidden_state[:, 0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_gated_mlp_of_published_size_is_known_by_its_name() -> None:
    from selfsight.models.transformers_layouts import described

    config = {"model_type": "dinov3_vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 16}
    config |= {"use_gated_mlp": True, "hidden_act": "silu", "num_register_tokens": 4}
    assert described(config, "x").settings.name == "vit_small_plus_patch16_dinov3_qkvb"
    config |= {"model_type": "dinov2", "use_gated_mlp": False, "use_swiglu_ffn": True, "hidden_act": "gelu"}
    with pytest.raises(WeightsError, match="width 384 and depth 12 with a gated MLP are none of those published"):
        described(config, "x")


def test_the_preprocessor_is_followed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    values: dict[str, Any] = {
        "do_center_crop": True,
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.1],
        "resample": 2,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(values))
    prepare = loaded(f"hf/{path}").prepare
    assert (prepare.size, prepare.crop_pct, prepare.interpolation) == (32, 0.8, "bilinear")
    assert (prepare.mean, prepare.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    (path / "preprocessor_config.json").write_text(json.dumps(values | {"image_mean": [0.5]}))
    assert "preprocessor_config.json' cannot be understood" in message(f"hf/{path}")
    (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": {"shortest_edge": 32}}))
    assert loaded(f"hf/{path}").prepare.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("processor", ["squashed", "cut"])
def test_pictures_are_those_of_the_library_itself(folder: Path, tmp_path: Path, processor: str) -> None:
    path = tmp_path / "model"
    shutil.copytree(folder, path)
    sizes = {"size": {"height": 32, "width": 32}} if processor == "squashed" else {
        "size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}
    }  # fmt: skip
    kind = ViTImageProcessor if processor == "squashed" else BitImageProcessor
    theirs = kind(**sizes, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    theirs.save_pretrained(path)
    picture = pictures(1, (150, 70))[0].resize((151, 71))
    ours = loaded(f"hf/{path}").prepare(picture)
    expected = torch.from_numpy(np.asarray(theirs(picture, return_tensors="np")["pixel_values"][0]))
    assert (ours - expected).abs().mean() < 0.01


def test_weights_in_several_files(folder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    images = torch.rand(2, 3, 32, 32)
    whole, parts = loaded(f"hf/{folder}"), loaded(f"hf/{tmp_path / 'parts'}")
    assert torch.equal(whole.encode(images), parts.encode(images))
    assert "safetensors files" in parts.weights
    next(iter(sorted((tmp_path / "parts").glob("model-*.safetensors")))).unlink()
    assert "of its" in message(f"hf/{tmp_path / 'parts'}")


def test_a_repository_in_the_layout_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", num_classes=5).eval()
    timm.models.save_for_hf(net, str(tmp_path / "files"))
    hub_repository(tmp_path / "hub", "org/cnn", tmp_path / "files")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = loaded("hf/org/cnn?size=64")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder.encode(images), expected, rtol=1e-4, atol=1e-5)
    assert encoder.weights == f"org/cnn at {'a' * 12}"
    assert encoder.prepare.interpolation == net.pretrained_cfg["interpolation"]


class TestHub:
    @pytest.fixture
    def cache(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        cache = tmp_path / "hub"
        hub_repository(cache, "org/small", folder)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return cache

    def test_an_id_comes_from_the_cache_with_its_commit(self, folder: Path, cache: Path) -> None:
        encoder = loaded("hf/org/small")
        assert encoder.weights == f"org/small at {'a' * 12}, model.safetensors"
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(encoder.encode(images), loaded(f"hf/{folder}").encode(images))

    def test_revisions(self, cache: Path, tmp_path: Path) -> None:
        other = transformers_folder(tmp_path / "other", "dinov2", seed=5)
        hub_repository(cache, "org/small", other, commit="b" * 40, revision="v2")
        images = torch.rand(1, 3, 32, 32)
        tagged, main = loaded("hf/org/small?revision=v2"), loaded("hf/org/small")
        assert not torch.allclose(tagged.encode(images), main.encode(images))
        assert torch.equal(loaded(f"hf/org/small?revision={'b' * 40}").encode(images), tagged.encode(images))
        assert f"at revision 'v3' is not in the cache of this machine ({cache})" in message("hf/org/small?revision=v3")

    def test_what_is_not_there(self, cache: Path) -> None:
        assert "and the model hub cannot be reached" in message("hf/org/other")
        assert "is neither a folder here nor a hub id such as facebook/dinov2-small" in message("hf/org/small/more")

    def test_a_preprocessing_that_was_never_fetched_is_not_guessed(self, cache: Path) -> None:
        shutil.rmtree(cache / "models--org--small" / ".no_exist")
        said = message("hf/org/small")
        assert "its preprocessor_config.json has not been fetched, and the model hub cannot be reached; fetch it once" in said
        assert loaded("hf/org/small?size=24&mean=.5,.5,.5&std=.5,.5,.5").prepare.size == 24

    def test_hf_home_and_offline_mode_are_the_clients_own(self, folder: Path, tmp_path: Path) -> None:
        hub_repository(tmp_path / "home" / "hub", "org/small", folder)
        code = "from selfsight.encoders import load_encoder; print(load_encoder('hf/org/small').weights)"
        env = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        env.pop("HF_HUB_CACHE", None)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"org/small at {'a' * 12}, model.safetensors"


class TestRefused:
    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        path = tmp_path / "copy"
        path.mkdir()
        for file in folder.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        return path

    def test_a_setting_that_is_none(self, copy: Path) -> None:
        assert "describes no dinov2" in self.change(copy, layer_norm_eps=None)

    def change(self, path: Path, **values: Any) -> str:
        config = json.loads((path / "config.json").read_text()) | values
        (path / "config.json").write_text(json.dumps(config))
        return message(f"hf/{path}")

    def test_another_layout(self, copy: Path) -> None:
        said = self.change(copy, model_type="bert")
        assert "type 'bert' is not known here; known are vit, dinov2, dinov2_with_registers, dinov3_vit" in said

    def test_another_setting(self, copy: Path) -> None:
        assert "'hidden_act' is 'relu'; a dinov2 is known here with 'gelu'" in self.change(copy, hidden_act="relu")

    def test_sizes_that_do_not_fit(self, copy: Path) -> None:
        assert "tensors are missing: encoder.layer.2." in self.change(copy, num_hidden_layers=3)
        assert "describes no dinov2" in self.change(copy, hidden_size="wide")

    def test_files_that_are_missing_or_damaged(self, copy: Path) -> None:
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:300])
        assert "is no whole safetensors file" in message(f"hf/{copy}")
        weights.unlink()
        assert "there are no weights; expected model.safetensors" in message(f"hf/{copy}")
        (copy / "config.json").write_text("{")
        assert "is no JSON that can be read" in message(f"hf/{copy}")
        (copy / "config.json").unlink()
        assert "there is no config.json" in message(f"hf/{copy}")
        assert "which has no revisions" in message(f"hf/{copy}?revision=main")

    def test_a_pickle_with_code(self, copy: Path, tmp_path: Path) -> None:
        (copy / "model.safetensors").unlink()
        (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "created").encode() + b"'\ntR.")
        assert "pytorch_model.bin' is no PyTorch checkpoint" in message(f"hf/{copy}")
        assert not (tmp_path / "created").exists()

    def test_tensors_too_many(self, copy: Path) -> None:
        tensors = load_file(copy / "model.safetensors")
        save_file(tensors | {"decoder.weight": torch.zeros(2)}, copy / "model.safetensors")
        assert "1 tensors are unexpected: decoder.weight" in message(f"hf/{copy}")


def test_a_folder_is_named_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert parse_spec("hf/small?size=32").absolute == f"hf/{folder}?size=32"
    assert parse_spec("hf/org/small").absolute == "hf/org/small"
