"""Arrays computed by the published code, from the folder that SELFSIGHT_GOLDEN names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


class Golden:
    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays.pop("config")))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self.tensor(name) for name in self.arrays if name.startswith(prefix)}


def golden(name: str) -> Golden:
    """The file `name`.npz, or a skip that says which variable is not set."""
    folder = os.environ.get("SELFSIGHT_GOLDEN")
    if not folder:
        pytest.skip("SELFSIGHT_GOLDEN is not set: it names the folder of arrays computed by the published code")
    return Golden(Path(folder) / f"{name}.npz")
