"""What computes an encoder's features: torch as it is, ONNX Runtime, or torch.compile.

To add a runtime: a file here with a `Runtime`, a word in `RUNTIMES`, and a branch in `choose`.
"""

from selfsight.encoders.runtimes.base import Runtime, Torch
from selfsight.encoders.runtimes.choice import RUNTIMES, choose

__all__ = ["RUNTIMES", "Runtime", "Torch", "choose"]
