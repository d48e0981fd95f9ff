"""One contract for every encoder family, then what is particular to each."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform

from encoder_files import CNN, VIT, hub_repository, network, onnx_file, pictures, run_folder, transformers_folder
from selfsight.encoders import FAMILIES, TorchEncoder, load_encoder, parse_spec, timm_hub
from selfsight.encoders.preprocess import Preprocess
from selfsight.errors import WeightsError
from selfsight.models.backbones import BackboneSettings, build_backbone

SMALL = "regnet_y_400mf"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _timm_spec(folder: Path, patch: pytest.MonkeyPatch, seed: int) -> str:
    """Weights in a cache of the hub of their own, so that nothing is asked of a network."""
    torch.manual_seed(seed)
    cache, files = folder / f"hub-{seed}", folder / f"timm-{seed}"
    files.mkdir()
    save_file(timm.create_model(CNN).state_dict(), files / "model.safetensors")
    hub_repository(cache, f"timm/{CNN}.r160_in1k", files)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return f"timm/{CNN}.r160_in1k?size=32"


def _hf_spec(folder: Path, patch: pytest.MonkeyPatch, seed: int) -> str:
    return f"hf/{transformers_folder(folder / f'transformers-{seed}', 'dinov2_with_registers', seed)}?size=32"


def _torchvision_spec(folder: Path, patch: pytest.MonkeyPatch, seed: int) -> str:
    """Weights in torch's cache."""
    torch.manual_seed(seed)
    published = torchvision.models.get_model_weights(SMALL).DEFAULT.url.rsplit("/", 1)[1]
    home = folder / f"torch-{seed}"
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(torchvision.models.get_model(SMALL).state_dict(), home / "hub" / "checkpoints" / published)
    patch.setenv("TORCH_HOME", str(home))
    return f"torchvision/{SMALL}?size=32"


def _file_spec(folder: Path, patch: pytest.MonkeyPatch, seed: int) -> str:
    path = folder / f"ours-{seed}.safetensors"
    save_file(network(VIT, seed=seed).state_dict(), path)
    return f"file/{path}?arch={VIT}&size=32"


def _lite0_spec(folder: Path, patch: pytest.MonkeyPatch, seed: int) -> str:
    return "efficientnet-lite0?size=32" + ("&mean=.4,.4,.4" if seed else "")


SPECS: dict[str, Callable[[Path, pytest.MonkeyPatch, int], str]] = {
    "runs": lambda folder, patch, seed: str(run_folder(folder / f"run-{seed}", seed=seed)),
    "timm": _timm_spec,
    "hf": _hf_spec,
    "torchvision": _torchvision_spec,
    "file": _file_spec,
    "onnx": lambda folder, patch, seed: f"onnx/{onnx_file(folder / f'{seed}.onnx', seed=seed)}",
    "efficientnet-lite0": _lite0_spec,
    "random": lambda folder, patch, seed: f"random/{CNN}?size=32&seed={seed}",
    "pixels": lambda folder, patch, seed: "pixels" + ("?std=.2,.2,.2" if seed else ""),
}
"""For each family a small encoder; another seed is another encoder. One that has fixed weights differs in its preprocessing."""


def test_every_family_has_a_contract_test() -> None:
    assert set(SPECS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
class TestContract:
    @pytest.fixture
    def spec(self, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
        made: dict[int, str] = {}

        def of(seed: int) -> str:
            if seed not in made:
                made[seed] = SPECS[family](tmp_path, monkeypatch, seed)
            return made[seed]

        return of

    def test_says_what_it_is(self, spec: Callable[[int], str]) -> None:
        encoder = load_encoder(spec(0))
        assert encoder.spec == spec(0)
        assert encoder.kind in ("vit", "cnn", "pixels", "other")
        assert encoder.weights
        assert encoder.pool
        assert encoder.input_size == 32
        assert (encoder.parameters > 0) == (encoder.kind != "pixels")
        assert all(isinstance(note, str) for note in encoder.notes)

    def test_gives_finite_float32_features_of_the_stated_width(self, spec: Callable[[int], str]) -> None:
        encoder = load_encoder(spec(0))
        features = encoder.encode(torch.stack([encoder.prepare(p) for p in pictures(3)]))
        assert features.shape == (3, encoder.feature_width)
        assert features.dtype == torch.float32
        assert torch.isfinite(features).all()
        assert not features.requires_grad
        assert not torch.allclose(features[0], features[1])

    def test_loads_to_the_same_features_and_fingerprint(self, spec: Callable[[int], str]) -> None:
        first, second = load_encoder(spec(0)), load_encoder(spec(0))
        images = torch.stack([first.prepare(p) for p in pictures(2)])
        assert torch.equal(first.encode(images), second.encode(images))
        assert first.fingerprint == second.fingerprint

    def test_an_image_does_not_depend_on_its_batch(self, spec: Callable[[int], str]) -> None:
        encoder = load_encoder(spec(0))
        images = torch.stack([encoder.prepare(p) for p in pictures(4)])
        together = encoder.encode(images)
        alone = torch.cat([encoder.encode(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)

    def test_the_fingerprint_follows_weights_and_preprocessing(self, spec: Callable[[int], str]) -> None:
        joined = "&" if "?" in spec(0) else "?"
        specs = [spec(0), spec(0) + joined + "interpolation=bilinear&crop=.5", spec(0) + joined + "interpolation=bicubic&crop=.9"]
        prints = {load_encoder(s).fingerprint for s in specs}
        prints.add(load_encoder(spec(1)).fingerprint)
        assert len(prints) == 4

    def test_prepare_goes_to_worker_processes(self, spec: Callable[[int], str]) -> None:
        encoder = load_encoder(spec(0))
        picture = pictures(1)[0]
        copy = pickle.loads(pickle.dumps(encoder.prepare))
        assert torch.equal(copy(picture), encoder.prepare(picture))
        assert copy(picture).shape == (3, 32, 32)

    def test_every_pool_gives_features_of_its_own(self, spec: Callable[[int], str]) -> None:
        plain = load_encoder(spec(0))
        images = torch.stack([plain.prepare(p) for p in pictures(3)])
        assert plain.pools[0] == plain.pool
        seen = {plain.fingerprint}
        for pool in plain.pools[1:]:
            encoder = load_encoder(f"{spec(0)}{'&' if '?' in spec(0) else '?'}pool={pool}")
            features = encoder.encode(images)
            assert encoder.pool == pool
            assert encoder.pools == plain.pools
            assert features.shape == (3, encoder.feature_width) == (3, math.prod(encoder.feature_shape))
            assert features.dtype == torch.float32
            assert torch.isfinite(features).all()
            assert not torch.allclose(features[0], features[1])
            torch.testing.assert_close(features[1:2], encoder.encode(images[1:2]), rtol=1e-5, atol=1e-5)
            seen.add(encoder.fingerprint)
        assert len(seen) == len(plain.pools)

    def test_an_unknown_option_names_the_nearest(self, spec: Callable[[int], str]) -> None:
        with pytest.raises(WeightsError, match=r"has no option 'sise'\. Did you mean 'size'\?"):
            load_encoder(spec(0) + ("&" if "?" in spec(0) else "?") + "sise=3")


def test_the_fingerprint_follows_what_the_tensors_do_not_tell(tmp_path: Path) -> None:
    """Heads, the epsilon of norms, and weights that an ONNX file keeps beside itself."""
    torch.manual_seed(0)
    save_file(
        timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=96, depth=1).state_dict(), tmp_path / "a.safetensors"
    )
    heads = [load_encoder(f"file/{tmp_path}/a.safetensors?arch=vit_w96_d1_p16_h{heads}&size=32") for heads in (3, 6)]
    first, second = (str(transformers_folder(tmp_path / name, "dinov2")) for name in ("first", "second"))
    config = Path(second) / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-06', '"layer_norm_eps": 0.1'))
    norms = [load_encoder(f"hf/{path}") for path in (first, second)]
    assert len({encoder.fingerprint for encoder in [*heads, *norms]}) == 4
    assert not torch.allclose(*(encoder.encode(torch.ones(1, 3, 32, 32)) for encoder in norms))
    prints = set()
    for scale in (1.0, 2.0):
        model = onnx.load(onnx_file(tmp_path / "plain.onnx"))
        kernel = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(scale)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
        onnx.save_model(model, tmp_path / "out.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        prints.add(load_encoder(f"onnx/{tmp_path}/out.onnx").fingerprint)
        (tmp_path / "weights.bin").unlink()
    assert len(prints) == 2


class TestSpecs:
    def test_parts(self) -> None:
        spec = parse_spec("random/vit_tiny_patch16_224?pool=cls+mean&size=64")
        assert (spec.family, spec.path, spec.options) == ("random", "vit_tiny_patch16_224", {"pool": "cls+mean", "size": "64"})
        assert parse_spec("file//a/b.pt?arch=resnet18").path == "/a/b.pt"
        assert parse_spec("file/a/b.pt?arch=resnet18").path == "a/b.pt"
        assert parse_spec("onnx//a/b.onnx").path == "/a/b.onnx"
        assert parse_spec("runs/birds").path == "runs/birds"
        assert parse_spec("runs//tmp/birds").path == "/tmp/birds"

    def test_a_run_folder_is_a_spec_by_any_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_folder(tmp_path / "runs" / "birds")
        monkeypatch.chdir(tmp_path)
        texts = ["runs/birds", "./runs/birds", str(tmp_path / "runs" / "birds"), f"runs/{tmp_path}/runs/birds"]
        assert len({load_encoder(text).fingerprint for text in texts}) == 1
        monkeypatch.chdir(tmp_path / "runs")
        assert load_encoder("birds?pool=mean").pool == "mean"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "pixel",
                "pixel: no such encoder. Did you mean 'pixels'? Valid are: runs/NAME, timm/NAME, hf/ORG/NAME,",
            ),
            ("pixels/x", "pixels/x: pixels takes no path; write pixels"),
            ("timm", "timm: timm needs a path; write timm/NAME"),
            ("pixels?", "pixels?: '' after '?' is no option; write key=value&key=value, for example ?pool=mean"),
            ("pixels?size=8&size=9", "pixels?size=8&size=9: option 'size' is given twice"),
            ("pixels?size=big", "pixels?size=big: 'size' must be a whole number from 8, got 'big'"),
            ("pixels?mean=1,2", "pixels?mean=1,2: 'mean' must be three numbers such as 0.485,0.456,0.406; got '1,2'"),
            ("pixels?std=1,0,1", "pixels?std=1,0,1: 'std' must be three numbers above 0 such as 0.229,0.224,0.225; got '1,0,1'"),
            ("pixels?crop=2", "pixels?crop=2: 'crop' must be a number above 0 and up to 1, such as 0.875; got '2'"),
            ("pixels?interpolation=x", "pixels?interpolation=x: 'interpolation' must be one of bicubic, bilinear; got 'x'"),
            (f"random/{VIT}?size=33", f"random/{VIT}?size=33: 'size' must be a multiple of the patch, 8, got 33; 32 is one"),
            (
                f"random/{VIT}?size=32&pool=gap",
                f"random/{VIT}?size=32&pool=gap: 'pool' must be one of cls, mean, cls+mean, patches for this network; got 'gap'",
            ),
            (
                "random/resnet10t?size=32&pool=cls",
                "must be one of gap, gem, stage1, stage2, stage3, stage4, stage5 for this network",
            ),
            ("pixels?size=32x", "'size' must be a whole number from 8, or height x width such as 224x448; got '32x'"),
            ("pixels?aspect=keep", "the pixels of differently shaped pictures cannot be compared"),
            (f"random/{VIT}?size=32x48&aspect=keep", "'aspect=keep' needs the shorter side alone, such as size=32"),
            (f"random/{VIT}?size=32x44", "must be a multiple of the patch, 8, got 44; 40 is one"),
            (f"random/{VIT}?size=32&aspect=keep&pool=patches", "has another length for every shape of picture"),
            ("random/mvitv2_tiny", "random/mvitv2_tiny: the network does not take pictures of 224 px"),
            ("random/resnet5", "random/resnet5: backbone 'resnet5': timm has no such network. Did you mean 'resnet50'?"),
            ("runs/none", "runs/none: 'runs/none' is no run folder; expected one with config.yaml and teacher.safetensors"),
            ("onnx/none.onnx", "onnx/none.onnx: 'none.onnx' does not exist; expected an .onnx file"),
        ],
    )
    def test_a_wrong_spec_says_what_would_be_right(self, text: str, message: str) -> None:
        with pytest.raises(WeightsError) as raised:
            load_encoder(text)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"is a folder but no run \(it holds no config.yaml\)"):
            load_encoder(str(tmp_path))


class TestPreprocess:
    @pytest.mark.parametrize("size", [(48, 40), (333, 500), (224, 224), (1000, 256), (20, 30)])
    @pytest.mark.parametrize(("crop", "interpolation"), [(0.875, "bicubic"), (1.0, "bilinear"), (0.9, "bicubic")])
    def test_is_timms_evaluation_transform(self, size: tuple[int, int], crop: float, interpolation: str) -> None:
        ours = Preprocess(64, crop_pct=crop, interpolation=interpolation)
        theirs = create_transform((3, 64, 64), interpolation=interpolation, mean=ours.mean, std=ours.std, crop_pct=crop)
        picture = pictures(1, size)[0]
        torch.testing.assert_close(ours(picture), theirs(picture), rtol=0, atol=1e-6)

    def test_a_squashed_picture_is_timms(self) -> None:
        ours = Preprocess(64, crop_pct=0.8, aspect="squash")
        told = {"mean": ours.mean, "std": ours.std, "crop_pct": 0.8, "crop_mode": "squash"}
        theirs = create_transform((3, 64, 64), interpolation="bicubic", **told)
        picture = pictures(1, (150, 70))[0]
        torch.testing.assert_close(ours(picture), theirs(picture), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("size", [(48, 40), (333, 500), (1000, 256), (64, 96)])
    def test_height_by_width_is_a_central_cut_of_the_covering_picture(self, size: tuple[int, int]) -> None:
        picture = pictures(1, size)[0]
        ours = Preprocess(64, width=96, crop_pct=1.0, mean=(0, 0, 0), std=(1, 1, 1))(picture)
        assert ours.shape == (3, 64, 96)
        width, height = size
        scale = max(64 / height, 96 / width)
        whole = picture.resize((max(96, int(width * scale)), max(64, int(height * scale))), Image.Resampling.BICUBIC)
        left, top = round((whole.width - 96) / 2), round((whole.height - 64) / 2)
        expected = torch.from_numpy(np.array(whole.crop((left, top, left + 96, top + 64)))).permute(2, 0, 1) / 255
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("size", "shape"), [((48, 40), (32, 32)), ((500, 333), (32, 48)), ((256, 1000), (120, 32)), ((40, 40), (32, 32))]
    )
    def test_a_kept_aspect_loses_less_than_a_patch(self, size: tuple[int, int], shape: tuple[int, int]) -> None:
        prepare = Preprocess(32, crop_pct=0.5, aspect="keep", multiple=8)
        assert prepare(pictures(1, size)[0]).shape == (3, *shape)

    def test_a_long_strip_needs_no_memory(self) -> None:
        assert Preprocess(64)(Image.new("RGB", (1, 60_000))).shape == (3, 64, 64)


class TestPools:
    @torch.no_grad()
    def test_last4_is_the_cls_of_the_last_four_blocks(self) -> None:
        encoder = load_encoder("random/vit_w32_d5_p8?size=32&pool=last4")
        assert isinstance(encoder, TorchEncoder)
        net, images = encoder.backbone.net, torch.rand(2, 3, 32, 32)
        kept: list[torch.Tensor] = []
        for block in net.blocks[1:]:
            block.register_forward_hook(lambda module, args, out: kept.append(net.norm(out)[:, 0]))
        features = encoder.encode(images)
        torch.testing.assert_close(features, torch.cat(kept, dim=1))
        assert features.shape == (2, 4 * 32)
        assert "last4" not in load_encoder("random/vit_w32_d3_p8?size=32").pools

    @torch.no_grad()
    def test_gem_lies_between_mean_and_maximum(self) -> None:
        encoder = load_encoder("random/resnet10t?size=64&pool=gem")
        assert isinstance(encoder, TorchEncoder)
        images = torch.rand(2, 3, 64, 64)
        maps = encoder.backbone.net.forward_features(images).clamp_min(1e-6)
        expected = (maps**3).mean((2, 3)) ** (1 / 3)
        features = encoder.encode(images)
        torch.testing.assert_close(features, expected)
        assert (features >= maps.mean((2, 3)) - 1e-6).all()
        assert (features <= maps.amax((2, 3)) + 1e-6).all()

    @torch.no_grad()
    def test_stages_are_the_maps_of_a_cnn(self) -> None:
        stage, last = (load_encoder(f"random/resnet10t?size=64&pool=stage{n}") for n in (3, 5))
        assert isinstance(stage, TorchEncoder)
        images = torch.rand(2, 3, 64, 64)
        seen: list[torch.Tensor] = []
        stage.backbone.net.layer2.register_forward_hook(lambda module, args, out: seen.append(out))
        features = stage.encode(images).unflatten(1, stage.feature_shape)
        assert stage.feature_shape == (8 * 8, 128)
        torch.testing.assert_close(features, seen[0].flatten(2).transpose(1, 2))
        whole = last.encode(images).unflatten(1, last.feature_shape).mean(1)
        torch.testing.assert_close(whole, load_encoder("random/resnet10t?size=64").encode(images), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", [VIT, "resnet10t"])
    def test_pictures_that_are_not_square(self, name: str) -> None:
        wide, kept = load_encoder(f"random/{name}?size=32x64"), load_encoder(f"random/{name}?size=32&aspect=keep")
        picture = pictures(1, (128, 64))[0]
        assert wide.prepare(picture).shape == kept.prepare(picture).shape == (3, 32, 64)
        assert (wide.prepare.text, kept.prepare.text) == ("32 x 64 px", "32 px, aspect kept")
        features = kept.encode(kept.prepare(picture)[None])
        assert features.shape == (1, kept.feature_width) == (1, wide.feature_width)

    def test_cls_and_mean_side_by_side(self) -> None:
        both, cls, mean = (load_encoder(f"random/{VIT}?size=32&pool={p}") for p in ("cls+mean", "cls", "mean"))
        images = torch.stack([both.prepare(p) for p in pictures(2)])
        assert torch.equal(both.encode(images), torch.cat([cls.encode(images), mean.encode(images)], dim=1))
        assert len({both.fingerprint, cls.fingerprint, mean.fingerprint}) == 3


class TestRuns:
    def test_the_teacher_without_its_head(self, tmp_path: Path) -> None:
        encoder = load_encoder(str(run_folder(tmp_path / "birds")))
        assert isinstance(encoder, TorchEncoder)
        assert encoder.weights == "selfsight run birds, step 1200"
        assert "projection head set aside (1 tensors)" in encoder.notes
        assert encoder.prepare == Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1.0)
        for key, tensor in network(VIT, seed=4).state_dict().items():
            assert torch.equal(encoder.backbone.net.state_dict()[key], tensor)

    def test_init_is_what_the_training_started_from(self, tmp_path: Path) -> None:
        path = run_folder(tmp_path / "birds", teacher=False, seed=3)
        state = torch.get_rng_state()
        encoder = load_encoder(f"{path}?weights=init")
        assert torch.equal(torch.get_rng_state(), state)
        assert encoder.weights == "untrained: what run birds started from (seed 3)"
        torch.manual_seed(3)
        started = build_backbone(BackboneSettings(name=VIT, image_size=32, drop_path=0.1)).eval()
        images = torch.stack([encoder.prepare(p) for p in pictures(2)])
        assert torch.equal(encoder.encode(images), started(images).cls)

    def test_an_unfinished_run(self, tmp_path: Path) -> None:
        path = run_folder(tmp_path / "birds", teacher=False)
        with pytest.raises(WeightsError, match=r"holds no teacher.safetensors yet: the training has not written a checkpoint"):
            load_encoder(str(path))

    def test_a_run_whose_config_is_of_another_training(self, tmp_path: Path) -> None:
        path = run_folder(tmp_path / "birds")
        (path / "config.yaml").write_text((path / "config.yaml").read_text().replace("_d1_", "_d2_"))
        with pytest.raises(WeightsError, match=r"12 tensors of 'vit_w32_d2_p8' are missing.* are not of the same training\."):
            load_encoder(str(path))

    def test_a_damaged_config(self, tmp_path: Path) -> None:
        path = run_folder(tmp_path / "birds")
        (path / "config.yaml").write_text("seed: 0\n")
        with pytest.raises(WeightsError, match="has no section 'backbone'"):
            load_encoder(str(path))


class TestTimm:
    def test_without_a_network_one_line_says_what_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timm_hub, "_cached", lambda config: None)
        monkeypatch.setattr(timm_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(timm_hub.constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(WeightsError, match="come once from the model hub, which cannot be reached") as raised:
            load_encoder("timm/resnet50.a1_in1k")
        assert "use efficientnet-lite0, random/resnet50, a run folder or file/PATH?arch=resnet50" in str(raised.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("timm/resnet5", "timm/resnet5: timm has no network 'resnet5'. Did you mean 'resnet50'?"),
            ("timm/resnet50.a1_in1", "timm/resnet50.a1_in1: 'resnet50' has no weights 'a1_in1'. Did you mean 'a1_in1k'?"),
            ("timm/test_vit2x", "timm has no network 'test_vit2x'"),
        ],
    )
    def test_unknown_names(self, text: str, message: str) -> None:
        with pytest.raises(WeightsError) as raised:
            load_encoder(text)
        assert message in str(raised.value)


class TestOnnx:
    def test_a_fixed_batch_gives_what_an_open_one_gives(self, tmp_path: Path) -> None:
        images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        names = (1, 2, "batch")
        outs = [load_encoder(f"onnx/{onnx_file(tmp_path / f'{b}.onnx', batch=b)}").encode(images) for b in names]
        torch.testing.assert_close(outs[0], outs[2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(outs[1], outs[2], rtol=1e-5, atol=1e-5)

    def test_maps_are_averaged_and_tokens_begin_with_cls(self, tmp_path: Path) -> None:
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        plain = load_encoder(f"onnx/{onnx_file(tmp_path / 'a.onnx')}?output=features")
        gap = load_encoder(f"onnx/{onnx_file(tmp_path / 'b.onnx', rank=4)}")
        assert (gap.pool, gap.feature_width, gap.parameters) == ("gap", 6, 6 * 3 * 64)
        torch.testing.assert_close(gap.encode(images), plain.encode(images), rtol=1e-5, atol=1e-5)
        path = onnx_file(tmp_path / "c.onnx", rank=3)
        widths = {pool: load_encoder(f"onnx/{path}?pool={pool}").feature_width for pool in ("cls", "mean", "cls+mean")}
        assert widths == {"cls": 24, "mean": 24, "cls+mean": 48}

    def test_a_classifier_at_the_end_is_noted(self, tmp_path: Path) -> None:
        path = onnx_file(tmp_path / "a.onnx")
        encoder = load_encoder(f"onnx/{path}")
        assert encoder.parameters == 6 * 3 * 64 + 6 * 7
        assert any("ends in MatMul, perhaps a classifier" in note and "(others: features)" in note for note in encoder.notes)
        assert any("ImageNet's assumed" in note for note in encoder.notes)
        chosen = load_encoder(f"onnx/{path}?output=features&mean=0,0,0&std=1,1,1")
        assert (chosen.feature_width, chosen.notes) == (6, [])

    def test_errors(self, tmp_path: Path) -> None:
        path = onnx_file(tmp_path / "a.onnx")
        with pytest.raises(WeightsError, match="'output' must be one of logits, features; got 'x'"):
            load_encoder(f"onnx/{path}?output=x")
        with pytest.raises(WeightsError, match="the graph is made for 32 pixels; leave out 'size'"):
            load_encoder(f"onnx/{path}?size=64")
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(path.read_bytes()[:500])
        with pytest.raises(WeightsError, match="is no network that ONNX Runtime"):
            load_encoder(f"onnx/{cut}")
