"""What needs Blender: its module is there, or a test says that it is not. With `SELFSIGHT_REQUIRE_BLENDER=1` none is skipped."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

HERE = find_spec("bpy") is not None
needs_blender = pytest.mark.skipif(
    not HERE and os.environ.get("SELFSIGHT_REQUIRE_BLENDER") != "1",
    reason="needs Blender's module bpy: pip install 'selfsight[synth]'; 'make test' runs it in an environment of its own",
)
