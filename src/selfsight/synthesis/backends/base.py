"""The contract of a backend: what draws scenes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from selfsight.synthesis.frame import Frame
from selfsight.synthesis.meshes import Mesh
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.spec import RenderSettings, SynthSpec


class Backend(ABC):
    """Draws scenes, the same picture for the same scene in whichever process and order.

    `labels` are those of `frame.LABELS` that its frames hold, `factors` those of `FACTORS` that it draws. `built_in` holds the
    names that a factor of kind `name` and `asset` may have without a file; `suffixes` the endings of its asset files.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    """In a line, for lists of backends."""
    labels: ClassVar[frozenset[str]]
    factors: ClassVar[frozenset[str]]
    built_in: ClassVar[dict[str, tuple[str, ...]]]
    suffixes: ClassVar[dict[str, tuple[str, ...]]]
    """Endings of files of `asset` and of each factor of kind `name`."""
    distractors: ClassVar[tuple[str, ...]]
    """Things of no class where a spec names none."""
    renders: ClassVar[bool] = False
    """Whether it builds scenes of three dimensions, of which `render` of a spec tells."""
    lifetime: ClassVar[int] = 5000
    """Pictures after which the process that draws is replaced."""

    def __init__(self, base: Path) -> None:
        self.base = base
        """The folder that files of a spec are relative to."""
        self.settings = RenderSettings()
        self.threads = 0
        """Of this process; 0 leaves it to the backend."""

    @abstractmethod
    def check(self, spec: SynthSpec) -> None:
        """Look at every file that `spec` (resolved: see `synth.files`) names; `DataError` for the first that cannot be drawn."""

    def meshes(self, spec: SynthSpec) -> dict[str, Mesh]:
        """By name, the model of each asset of a class, as the poses of its frames mean it; none of a backend without poses."""
        return {}

    @abstractmethod
    def draw(self, scene: Scene) -> Frame:
        """The picture and its labels."""
