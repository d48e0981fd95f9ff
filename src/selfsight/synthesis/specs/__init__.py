"""Specs that come with the package, as YAML files."""

from __future__ import annotations

from pathlib import Path

DEMO = Path(__file__).with_name("demo.yaml")
"""The pictures of `selfsight demo`."""
