"""One render, and every pass of it as an array."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.errors import SelfsightError
from selfsight.synthesis.backends.blender.loaded import blender, quiet

Floats: TypeAlias = npt.NDArray[np.float32]

_passes: dict[str, Floats] = {}


def rendered(scene: str) -> dict[str, Floats]:
    """Blender's scene of that name as it stands: passes by Blender's names, [h, w, channels] from the top row down."""
    bpy = blender()
    _tapped()
    _passes.clear()
    with quiet():
        bpy.ops.render.render(scene=scene)
    if "Combined" not in _passes:
        raise SelfsightError("Blender rendered nothing; it says why on standard error")
    return dict(_passes)


@cache
def _tapped() -> None:
    """Blender frees the passes after a render without a window, so they are read within it, at its end."""
    import cycles

    render = cycles.CyclesRender.render
    cycles.CyclesRender.render = _tap(render)


def _tap(render: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def tapped(self: Any, depsgraph: Any) -> None:
        render(self, depsgraph)
        result = self.get_result()
        shape = result.resolution_y, result.resolution_x
        for each in result.layers[0].passes:
            values = np.empty(shape[0] * shape[1] * each.channels, dtype=np.float32)
            each.rect.foreach_get(values)
            _passes[each.name] = values.reshape(*shape, each.channels)[::-1]

    return tapped
