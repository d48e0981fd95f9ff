"""The user's own weights: whatever trainer wrote them, all of them or none, and never a line of their code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from encoder_files import VIT, network, pictures
from selfsight.encoders import TorchEncoder, load_encoder
from selfsight.errors import WeightsError

OPTIONS = f"?arch={VIT}&size=32&mean=.5,.5,.5&std=.5,.5,.5"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.set_num_threads(1)
    return network(VIT).state_dict()


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def load(path: Path, content: Any, options: str = OPTIONS) -> TorchEncoder:
    torch.save(content, path)
    encoder = load_encoder(f"file/{path}{options}")
    assert isinstance(encoder, TorchEncoder)
    return encoder


def message(spec: str) -> str:
    with pytest.raises(WeightsError) as raised:
        load_encoder(spec)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(spec)
    return text.removeprefix(spec)


class TestLayouts:
    @pytest.mark.parametrize(
        "prefix",
        [
            "",
            "model.",
            "module.",
            "net.",
            "backbone.",
            "encoder.",
            "_orig_mod.",
            "student.backbone.",
            "teacher.",
            "model._orig_mod.net.",
        ],
    )
    @pytest.mark.parametrize("container", ["", "state_dict", "model", "state_dict_ema"])
    def test_prefixes_and_containers(self, tmp_path: Path, weights: dict[str, Tensor], prefix: str, container: str) -> None:
        tensors = under(prefix, weights)
        encoder = load(tmp_path / "ours.ckpt", {container: tensors, "epoch": 3} if container else tensors)
        for key, tensor in weights.items():
            assert torch.equal(encoder.backbone.net.state_dict()[key], tensor)
        assert (f"prefix '{prefix}' stripped" in encoder.notes) == bool(prefix)
        assert (f"weights taken from '{container}'; beside it, unused: epoch" in encoder.notes) == bool(container)
        assert encoder.weights == f"file ours.ckpt, as {VIT}"

    def test_a_lightning_checkpoint(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        state = under("model.", weights) | {"model.head.weight": torch.zeros(10, 32), "model.head.bias": torch.zeros(10)}
        extra = {
            "epoch": 9,
            "pytorch-lightning_version": "2.5",
            "optimizer_states": [{"state": {}}],
            "hyper_parameters": {"lr": 0.1},
        }
        encoder = load(tmp_path / "last.ckpt", {"state_dict": state, **extra})
        assert "head set aside: model.head.weight, model.head.bias" in encoder.notes
        assert "prefix 'model.' stripped" in encoder.notes

    @pytest.mark.parametrize("head", ["classifier.1.", "fc.", "head.mlp.0."])
    def test_a_head_beside_the_backbone(self, tmp_path: Path, weights: dict[str, Tensor], head: str) -> None:
        encoder = load(tmp_path / "a.pth", under("model.backbone.", weights) | {f"model.{head}weight": torch.zeros(2, 32)})
        assert f"head set aside: model.{head}weight" in encoder.notes

    def test_the_teacher_is_taken_before_the_student(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        zeros = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
        state = under("student.backbone.", zeros) | under("teacher.backbone.", weights)
        state |= {"teacher.head.weight": torch.zeros(2), "student.head.weight": torch.zeros(2)}
        encoder = load(tmp_path / "a.ckpt", {"state_dict": state})
        assert torch.equal(encoder.backbone.net.state_dict()["cls_token"], weights["cls_token"])
        assert f"the teacher is used, the student set aside ({len(weights) + 1} tensors)" in encoder.notes

    def test_two_of_equal_right_are_asked_about(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        path = tmp_path / "moco.pt"
        torch.save(under("encoder_q.", weights) | under("encoder_k.", weights), path)
        text = message(f"file/{path}{OPTIONS}")
        assert (
            f"holds '{VIT}' 2 times, under 'encoder_q.', 'encoder_k.'; leave one out, for example with ?ignore=encoder_q" in text
        )
        assert load_encoder(f"file/{path}{OPTIONS}&ignore=encoder_k").feature_width == 32

    def test_torchvisions_resnet(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        theirs = torchvision.models.resnet18(weights=None).eval()
        encoder = load(tmp_path / "r.pt", theirs.state_dict(), "?arch=resnet18&size=64")
        assert "head set aside: fc.weight, fc.bias" in encoder.notes
        assert any(note.startswith("mean and std not given: ImageNet's assumed") for note in encoder.notes)
        theirs.fc = nn.Identity()
        images = torch.stack([encoder.prepare(p) for p in pictures(2)])
        with torch.no_grad():
            torch.testing.assert_close(encoder.encode(images), theirs(images), rtol=1e-4, atol=1e-4)

    def test_position_embeddings_tell_the_size(self, tmp_path: Path) -> None:
        encoder = load(tmp_path / "v.pt", network(VIT, size=48).state_dict(), f"?arch={VIT}")
        assert (encoder.input_size, encoder.backbone.settings.image_size) == (48, 48)

    def test_safetensors(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        save_file(under("model.", weights), tmp_path / "a.safetensors")
        assert load_encoder(f"file/{tmp_path}/a.safetensors{OPTIONS}").notes == ["prefix 'model.' stripped"]

    def test_batch_norm_counters_may_be_missing(self, tmp_path: Path) -> None:
        state = {key: t for key, t in network("test_efficientnet").state_dict().items() if "num_batches" not in key}
        assert load(tmp_path / "a.pt", state, "?arch=test_efficientnet&size=32").kind == "cnn"


class TestAllOrNothing:
    def test_missing_and_unexpected_tensors_are_listed(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        path = tmp_path / "a.pt"
        state = {key: tensor for key, tensor in weights.items() if not key.startswith("blocks.0.mlp")}
        torch.save(state | {"criterion.weight": torch.zeros(2), "criterion.bias": torch.zeros(2)}, path)
        text = message(f"file/{path}{OPTIONS}")
        assert (
            f"4 tensors of '{VIT}' are missing: blocks.0.mlp.fc1.weight, blocks.0.mlp.fc1.bias, blocks.0.mlp.fc2.weight" in text
        )
        assert "2 tensors are unexpected: criterion.weight, criterion.bias (option ignore=criterion leaves them out)" in text

    def test_ignore_leaves_out_what_the_user_names(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        encoder = load(tmp_path / "a.pt", weights | {"criterion.weight": torch.zeros(2)}, OPTIONS + "&ignore=criterion")
        assert encoder.notes == ["ignored as asked: criterion.weight"]

    def test_a_long_list_is_cut_at_eight(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        path = tmp_path / "a.pt"
        torch.save(weights | {f"queue.{n}": torch.zeros(1) for n in range(11)}, path)
        assert "11 tensors are unexpected: queue.0, queue.1," in (text := message(f"file/{path}{OPTIONS}"))
        assert "queue.7 and 3 more" in text

    def test_the_wrong_architecture(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        path = tmp_path / "a.pt"
        torch.save(weights, path)
        assert "holds no tensor of 'resnet10t'; its tensors are cls_token, pos_embed," in message(
            f"file/{path}?arch=resnet10t&size=32"
        )
        text = message(f"file/{path}?arch=vit_w64_d1_p8&size=32")
        assert "tensors have another shape; first 'cls_token': (1, 1, 32) in the file, (1, 1, 64) in 'vit_w64_d1_p8'" in text
        assert "12 tensors of 'vit_w32_d2_p8' are missing: blocks.1.norm1.weight" in message(
            f"file/{path}?arch=vit_w32_d2_p8&size=32"
        )

    def test_no_architecture(self, tmp_path: Path) -> None:
        torch.save(network("test_efficientnet").state_dict(), tmp_path / "a.pt")
        assert "which network is it? Add ?arch=" in message(f"file/{tmp_path}/a.pt")


class Payload:
    """Unpickling it with code allowed would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


class TestFilesThatAreNotWeights:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_code_is_refused_and_not_run(self, tmp_path: Path, weights: dict[str, Tensor], legacy: bool) -> None:
        path, target = tmp_path / "evil.ckpt", tmp_path / "created"
        content = {"state_dict": weights, "callbacks": Payload(target)}
        if legacy:
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        text = message(f"file/{path}{OPTIONS}")
        assert not target.exists()
        assert "needs code to be run to be read and is refused" in text
        assert "torch.save(model.state_dict(), 'weights.pt')" in text

    def test_a_whole_module_is_refused(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "a.pt")
        assert "needs code to be run" in message(f"file/{tmp_path}/a.pt{OPTIONS}")

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
    def test_a_file_cut_off(self, tmp_path: Path, weights: dict[str, Tensor], zipped: bool, share: float) -> None:
        path = tmp_path / "a.pt"
        torch.save(weights, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "is damaged or cut off" in message(f"file/{path}{OPTIONS}")

    @pytest.mark.parametrize("share", [0, 0.02, 0.5])
    def test_safetensors_cut_off(self, tmp_path: Path, weights: dict[str, Tensor], share: float) -> None:
        path = tmp_path / "a.safetensors"
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "is no whole safetensors file" in message(f"file/{path}{OPTIONS}")

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "a.pt").write_text("hello")
        assert "is no PyTorch checkpoint; expected a .safetensors, .pt, .pth or .ckpt" in message(
            f"file/{tmp_path}/a.pt{OPTIONS}"
        )
        (tmp_path / "empty.pt").touch()
        assert "is no PyTorch checkpoint" in message(f"file/{tmp_path}/empty.pt{OPTIONS}")
        torch.save([1, 2], tmp_path / "list.pt")
        assert "holds no tensors by name" in message(f"file/{tmp_path}/list.pt{OPTIONS}")
        assert "does not exist; expected a .safetensors, .pt" in message(f"file/{tmp_path}/none.pt{OPTIONS}")
        assert "is a folder; expected a .safetensors, .pt" in message(f"file/{tmp_path}{OPTIONS}")
