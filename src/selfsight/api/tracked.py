"""The folder that `propagate` fills: masks of frames, and what is needed to go on after the last of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsight.attention.propagation import Ids
from selfsight.data.object_ids import write_ids
from selfsight.errors import InputError
from selfsight.runs import write_atomic, write_json_atomic

_TOLD = {
    "fingerprint": "the encoder's weights or preprocessing have changed",
    "mark": "the frames of the video have changed",
    "mask": "the mask was another one",
}
"""Of what has values that say nothing to people."""


class Tracked:
    """`masks/NAME.png` of the frames done, `propagation.json` with all that decides them, and until the last frame is done
    `context.npz`: the soft maps of the frames that the next one looks at, and how many are done.

    A mask is written before the context that counts it, so that whatever stops the work, the next call makes at most one mask
    again. `InputError` where the folder holds what another encoder, video, mask or rule has made.
    """

    def __init__(self, folder: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
        self.folder, self.masks = folder, folder / "masks"
        self._names, self._about = names, dict(about)
        self._state, self._context = folder / "propagation.json", folder / "context.npz"
        self._soft: list[Tensor] = []
        self.done = self._begun()

    def mask(self, place: int) -> Path:
        return self.masks / f"{self._names[place]}.png"

    def context(self) -> Iterator[tuple[int, Tensor]]:
        """Places and soft maps [C, H, W] of the last frames done, the latest last."""
        yield from zip(range(self.done - len(self._soft), self.done), self._soft, strict=True)

    def add(self, ids: Ids, context: Sequence[Tensor]) -> None:
        """The mask of the next frame, and the soft maps that the one after it will look at."""
        if not self.done:
            write_json_atomic(self._state, self._about)
        write_ids(self.mask(self.done), ids)
        self.done += 1
        maps = np.stack([soft.cpu().numpy() for soft in context]) if context else np.zeros(0, dtype=np.float32)
        write_atomic(self._context, lambda temporary: _save(temporary, maps, self.done))

    def finish(self) -> None:
        self._context.unlink(missing_ok=True)

    def _begun(self) -> int:
        """How many frames are done."""
        if not self._state.is_file():
            if self.folder.is_dir() and (found := next((each.name for each in sorted(self.folder.iterdir())), None)) is not None:
                raise InputError(f"--out {self.folder}: holds '{found}', which propagate did not make; give a new folder")
            return 0
        self._check(json.loads(self._state.read_text(encoding="utf-8")))
        done = len(self._names)
        if self._context.is_file():
            with np.load(self._context, allow_pickle=False) as file:
                done = int(file["done"])
                self._soft = [torch.from_numpy(soft) for soft in file["soft"]]
        if all(self.mask(place).is_file() for place in range(done)):
            return done
        self._soft = []
        return 0

    def _check(self, before: Mapping[str, Any]) -> None:
        for name, value in self._about.items():
            if before.get(name) != value:
                what = _TOLD.get(name, f"{name} was {before.get(name)}, is {value} now")
                raise InputError(f"--out {self.folder}: holds the masks of another call ({what}); give another --out")


def _save(path: Path, soft: np.ndarray, done: int) -> None:
    with path.open("wb") as file:
        np.savez(file, soft=soft, done=done)
