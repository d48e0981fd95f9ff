"""What of a network learns when it is fine-tuned: all, its head, or small matrices beside the weights of attention.

LoRA (Hu et al. 2022): a weight W stays as it is, and W + (alpha / r) B A is used, with A [r, in] and B [out, r] to be learnt. B
starts at 0, so the network starts as it was. What is saved as an encoder is the sum, under the name of W.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from selfsight.errors import ConfigError
from selfsight.ssl.network import Network
from selfsight.ssl.tuning import TuningSettings

_ADAPTED = re.compile(r"\.attn\.(qkv|proj|q_proj|k_proj|v_proj)$")
_NAME = "default"


def limit_to(network: Network, tuning: TuningSettings) -> None:
    """Let only that learn of a network which `tuning` says, and the statistics of batch norm stay if they are to."""
    if tuning.norm == "kept":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    if tuning.learns == "all":
        return
    network.backbone.requires_grad_(False)
    if tuning.learns == "head":
        network.backbone.eval()
    else:
        _adapt(network.backbone.net, tuning.lora or 8, network.backbone.settings.name)


def _adapt(net: nn.Module, rank: int, name: str) -> None:
    targets = [path for path, module in net.named_modules() if isinstance(module, nn.Linear) and _ADAPTED.search(path)]
    if not targets:
        raise ConfigError(
            f"--lora {rank}: adapts the attention of a ViT, and {name} has none; leave --lora out, or take --freeze"
        )
    peft = _peft()
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), net)
    for path, parameter in net.named_parameters():
        parameter.requires_grad_(".lora_" in path)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ConfigError("--lora: needs the package peft; install it with: pip install 'selfsight[lora]'") from None
    return peft


def merged(network: nn.Module) -> Mapping[str, Tensor]:
    """The state of a network with every adapter added to the weight that it stands beside: the names of one without adapters."""
    state = network.state_dict()
    layers = {f"{path}.": module for path, module in network.named_modules() if hasattr(module, "get_delta_weight")}
    if not layers:
        return state
    out = {}
    for key, tensor in state.items():
        path = next((path for path in layers if key.startswith(path)), None)
        if path is None:
            out[key] = tensor
        elif key.startswith(f"{path}base_layer."):
            short = key.replace("base_layer.", "", 1)
            out[short] = tensor + layers[path].get_delta_weight(_NAME) if key.endswith(".weight") else tensor
    return out
