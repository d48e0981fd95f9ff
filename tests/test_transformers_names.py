"""Files of transformers and networks of timm: the same tensors under other names, in both directions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from selfsight.errors import WeightsError
from selfsight.models.backbones import BackboneSettings, wrap
from selfsight.models.transformers_names import LAYOUTS, from_timm, to_timm

SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
PLAIN: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}

CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "vit": ("vit", {"intermediate_size": 256, "layer_norm_eps": 1e-6}, "vit_tiny_patch16_224", {}),
    "dinov2": ("dinov2", {}, "vit_tiny_patch16_224", {"init_values": 1.0}),
    "dinov2-giant": (
        "dinov2",
        {"use_swiglu_ffn": True},
        "vit_giant_patch14_dinov2",
        {"mlp_ratio": 2 * 2.75},  # (int(4 * 64 * 2 / 3) + 7) // 8 * 8 = 176 = 2.75 * 64
    ),
    "dinov2-registers": (
        "dinov2_with_registers",
        {"num_register_tokens": 3},
        "vit_tiny_patch16_224",
        {"init_values": 1.0, "reg_tokens": 3, "no_embed_class": True},
    ),
    "dinov3": (
        "dinov3_vit",
        {"intermediate_size": 256, "num_register_tokens": 2},
        "vit_small_patch16_dinov3_qkvb",
        {"num_reg_tokens": 2},
    ),
    "dinov3-gated": (
        "dinov3_vit",
        {"intermediate_size": 256, "num_register_tokens": 2, "use_gated_mlp": True, "hidden_act": "silu"},
        "vit_small_plus_patch16_dinov3_qkvb",
        {"num_reg_tokens": 2, "mlp_ratio": 4.0},
    ),
}


def theirs(case: str, folder: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """transformers' network with drawn weights, and the tensors of the file that it writes."""
    model_type, options, _, _ = CASES[case]
    config = transformers.AutoConfig.for_model(model_type, **SIZES, **options)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return model, load_file(folder / "model.safetensors")


def network(case: str) -> nn.Module:
    _, _, name, options = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, num_classes=0, **PLAIN | options).eval()


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_transformers_is_the_same_network_in_timm_and_comes_back(case: str, tmp_path: Path) -> None:
    model, found = theirs(case, tmp_path)
    net, (model_type, options, _, _) = network(case), CASES[case]
    translated = to_timm(model_type, found, net, "here")
    assert translated.aside == [name for name in found if name.startswith("pooler.")]
    net.load_state_dict(translated.tensors)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = wrap(net, BackboneSettings(image_size=32))(images)
        expected = model(images).last_hidden_state
    registers = options.get("num_register_tokens", 0)
    torch.testing.assert_close(tokens.cls, expected[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens.patches, expected[:, 1 + registers :], rtol=1e-4, atol=1e-4)
    back = from_timm(model_type, net.state_dict(), "here", translated.mask_token)
    assert back.keys() == found.keys() - set(translated.aside)
    moved = {"embeddings.cls_token", "embeddings.position_embeddings"} if registers and model_type != "dinov3_vit" else set()
    assert all(torch.equal(back[name], found[name]) for name in back.keys() - moved)
    again = to_timm(model_type, back, net, "here").tensors
    assert all(torch.equal(again[name], tensor) for name, tensor in net.state_dict().items())


def test_every_layout_has_a_case() -> None:
    assert {case[0] for case in CASES.values()} == set(LAYOUTS)


def test_what_a_network_lacks_is_written_as_what_changes_nothing() -> None:
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, **PLAIN)
    made = from_timm("dinov2", plain.state_dict(), "here")
    assert torch.equal(made["encoder.layer.1.layer_scale2.lambda1"], torch.ones(64))
    assert torch.equal(made["embeddings.mask_token"], torch.zeros(1, 64))
    again = to_timm("dinov2", made, plain, "here").tensors
    assert all(torch.equal(again[name], tensor) for name, tensor in plain.state_dict().items())
    made["encoder.layer.1.layer_scale2.lambda1"][3] = 0.5
    with pytest.raises(WeightsError, match=r"1 tensors are unexpected: encoder\.layer\.1\.layer_scale2\.lambda1$"):
        to_timm("dinov2", made, plain, "here")


def test_a_classifier_around_the_network_is_set_aside() -> None:
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, **PLAIN)
    made = {f"vit.{name}": tensor for name, tensor in from_timm("vit", plain.state_dict(), "here").items()}
    translated = to_timm("vit", made | {"classifier.weight": torch.zeros(9, 64)}, plain, "here")
    assert (translated.aside, translated.mask_token) == (["classifier.weight"], None)
    assert all(torch.equal(translated.tensors[name], tensor) for name, tensor in plain.state_dict().items())


def test_errors_list_the_names() -> None:
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, **PLAIN)
    made = from_timm("vit", plain.state_dict(), "here")
    missing = {name: tensor for name, tensor in made.items() if name != "layernorm.bias"} | {"extra": torch.zeros(1)}
    expected = "here: weights of vit for another network; 1 tensors are missing: layernorm.bias; 1 tensors are unexpected: extra"
    with pytest.raises(WeightsError) as raised:
        to_timm("vit", missing, plain, "here")
    assert str(raised.value) == expected
    with pytest.raises(WeightsError, match=r"'norm.bias' is \(3,\) in the file, \(64,\) in the network"):
        to_timm("vit", made | {"layernorm.bias": torch.zeros(3)}, plain, "here")
    with pytest.raises(WeightsError, match=r"here: vit has no place for 5 tensors: reg_token, blocks\.0\.ls1\.gamma, "):
        from_timm("vit", network("dinov2-registers").state_dict(), "here")
    with pytest.raises(WeightsError, match="'beit' is no layout that is known here; known are vit, dinov2, "):
        to_timm("beit", made, plain, "here")
