"""Runtimes: another way to the same features, taken only where it leads there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import encoder_files
from selfsight import api
from selfsight import device as devices
from selfsight.api import filling
from selfsight.data.sources import open_source
from selfsight.encoders import Encoder, TorchEncoder, extract, load_encoder
from selfsight.encoders.runtimes import Runtime, Torch, choose
from selfsight.errors import ConfigError

CPU = torch.device("cpu")
VIT = "random/vit_w32_d1_p8?size=32"
MANY = 10**9

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runtimes"


def noise(encoder: Encoder, count: int = 8) -> Tensor:
    return torch.randn(count, 3, *encoder.prepare.shape, generator=torch.Generator().manual_seed(count))


def chosen(encoder: Encoder, runtime: str, count: int = MANY) -> tuple[Runtime, list[str]]:
    said: list[str] = []
    return choose(encoder, lambda: noise(encoder), count=count, runtime=runtime, say=said.append), said


@pytest.mark.parametrize(
    "spec",
    [
        f"{VIT}&pool=cls+mean",
        f"{VIT}&pool=patches",
        "random/test_vit3",
        f"random/{encoder_files.CNN}?size=64",
        "random/vit_w32_d1_p8?size=32x48",
    ],
)
def test_onnx_gives_the_features_of_torch_for_any_batch(spec: str) -> None:
    encoder = load_encoder(spec)
    runtime, said = chosen(encoder, "onnx")
    assert (runtime.name, said) == ("onnx", [f"{spec}: writing its graph for ONNX Runtime, once"])
    for count in (1, 3, 9):
        images = noise(encoder, count)
        torch.testing.assert_close(runtime.encode(images), encoder.encode(images), rtol=1e-4, atol=1e-5)


def test_threads_share_a_batch() -> None:
    encoder = load_encoder(VIT)
    torch.set_num_threads(2)
    runtime, _ = chosen(encoder, "onnx")
    images = noise(encoder, 19)
    torch.testing.assert_close(runtime.encode(images), encoder.encode(images), rtol=1e-4, atol=1e-5)


def test_a_picture_of_another_shape_goes_through_torch() -> None:
    encoder = load_encoder(f"{VIT}&aspect=keep")
    runtime, _ = chosen(encoder, "onnx")
    long = torch.randn(2, 3, 32, 64)
    torch.testing.assert_close(runtime.encode(long), encoder.encode(long), rtol=0, atol=0)


def test_the_graph_is_written_once_and_again_where_it_is_damaged(cache: Path) -> None:
    encoder = load_encoder(VIT)
    chosen(encoder, "onnx")
    (graph,) = cache.glob("*.onnx")
    assert chosen(encoder, "onnx")[1] == []
    graph.write_bytes(graph.read_bytes()[:-50])
    runtime, _ = chosen(encoder, "onnx")
    torch.testing.assert_close(runtime.encode(noise(encoder)), encoder.encode(noise(encoder)), rtol=1e-4, atol=1e-5)


class AgainstTheMean(nn.Module):
    """Features that depend on which images share a batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, network.head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features - features.mean(0)


class OnlyIfBright(nn.Module):
    """What it does depends on what it sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, network.head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features if float(images.mean()) > 0 else -features


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (AgainstTheMean, r"the features of onnx differ by 0\.\d+, more than 0\.000\d+"),
        (OnlyIfBright, r"torch cannot export it \(.+\)"),
    ],
)
@pytest.mark.parametrize("asked", ["onnx", "auto"])
def test_what_is_not_the_same_is_not_taken_and_said(asked: str, network: type[nn.Module], why: str) -> None:
    encoder = load_encoder(VIT)
    assert isinstance(encoder, TorchEncoder)
    encoder.network = network(encoder.network).eval()  # type: ignore[call-arg]
    runtime, said = chosen(encoder, asked)
    assert runtime.name == "torch"
    assert len(said) == 2
    assert re.fullmatch(rf"{re.escape(VIT)}: runtime torch, {why}", said[1]), said[1]


def test_auto_measures_once_and_keeps_what_it_found(cache: Path) -> None:
    encoder = load_encoder(VIT)
    first, said = chosen(encoder, "auto")
    assert said[-1].startswith(f"{VIT}: runtime {first.name}; measured here, images/s: torch ")
    (record,) = cache.glob("*.json")
    found = json.loads(record.read_text())
    rates = found["images_per_second"]
    assert found["runtime"] == first.name == max(rates, key=lambda name: rates[name])
    assert set(rates) == {"torch", "onnx"}
    for name in ("onnx", "torch"):
        record.write_text(json.dumps({"runtime": name}))
        again, said = chosen(encoder, "auto")
        assert (again.name, said) == (name, [])
    record.write_text("{")
    assert "measured here" in chosen(encoder, "auto")[1][-1]


def test_few_images_are_not_worth_a_graph(cache: Path) -> None:
    assert chosen(load_encoder(VIT), "auto", count=8)[0].name == "torch"
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_said_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "file" / "below"))
    runtime, said = chosen(load_encoder(VIT), "auto")
    assert runtime.name == "torch"
    assert "runtime torch, " in said[1]
    assert "cannot be written" in said[1]
    assert said[2].startswith("the choice of a runtime is not kept: ")


@pytest.mark.skipif(devices.missing_compiler(CPU) is not None, reason="needs a C++ compiler (g++)")
def test_compiled_it_gives_the_features_of_torch() -> None:
    encoder = load_encoder(VIT)
    runtime = choose(encoder, lambda: noise(encoder), count=MANY, batch_size=8, runtime="compile")
    assert runtime.name == "compile"
    images = noise(encoder, 11)
    torch.testing.assert_close(runtime.encode(images), encoder.encode(images), rtol=1e-4, atol=1e-5)
    long = torch.randn(2, 3, 32, 64)
    torch.testing.assert_close(runtime.encode(long), encoder.encode(long), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (VIT, {"runtime": "onxx"}, "--runtime: no runtime 'onxx'. Did you mean 'onnx'?"),
        ("pixels", {"runtime": "onnx"}, "--runtime onnx: pixels is no network of torch and has a runtime of its own; leave"),
        (VIT, {"runtime": "onnx", "precision": "bfloat16"}, "--runtime onnx: computes in float32; take --runtime torch with"),
        (VIT, {"precision": "float8"}, "--precision: expected float32 or bfloat16. Got 'float8'."),
        (VIT, {"runtime": "compile", "device": torch.device("mps")}, "--runtime compile: is for the CPU; on mps take torch"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(spec: str, options: dict[str, object], message: str) -> None:
    encoder = load_encoder(spec)
    with pytest.raises(ConfigError) as refused:
        choose(encoder, lambda: noise(encoder), count=1, **options)  # type: ignore[arg-type]
    assert str(refused.value).startswith(message)


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="--runtime compile: needs a C\\+\\+ compiler, and 'no-such-compiler' is not installed"):
        chosen(load_encoder(VIT), "compile")


def test_half_precision_is_near_and_named() -> None:
    encoder = load_encoder(VIT)
    runtime = choose(encoder, lambda: noise(encoder), count=MANY, precision="bfloat16")
    assert runtime.about == "torch in bfloat16"
    own, half = encoder.encode(noise(encoder)), runtime.encode(noise(encoder))
    assert half.dtype == torch.float32
    assert 0 < float((half - own).abs().max()) < 0.1


def test_features_of_extract_are_torchs_unless_asked_otherwise_and_kept_apart(tmp_path: Path) -> None:
    encoder, source = load_encoder(VIT), open_source(encoder_files.folder_of_pictures(tmp_path / "images"))
    runtime, _ = chosen(encoder, "onnx")
    own = extract(encoder, source, device="cpu")
    same = extract(encoder, source, device="cpu", runtime=Torch(encoder, CPU))
    other = extract(encoder, source, device="cpu", runtime=runtime)
    assert (own.cached, same.cached, other.cached) == (False, True, False)
    assert extract(encoder, source, device="cpu", runtime=runtime).cached
    np.testing.assert_allclose(other.vectors, own.vectors, atol=1e-4)


def test_a_file_that_was_begun_goes_on_in_its_runtime(tmp_path: Path) -> None:
    images = encoder_files.folder_of_pictures(tmp_path / "images")

    class Impatient(api.Silent):
        def advance(self, what: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "PART_BYTES", 1)
        with pytest.raises(KeyboardInterrupt):
            api.embed(VIT, images, tmp_path / "f.parquet", batch_size=2, runtime="onnx", watch=Impatient())
    summary = api.embed(VIT, images, tmp_path / "f.parquet", batch_size=2)
    assert (summary["runtime"], summary["resumed"]) == ("onnx", 2)
