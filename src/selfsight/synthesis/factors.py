"""The factors of a scene: what can be varied, in which units, within which bounds, and what it is when a spec is silent.

A factor belongs to the picture (drawn once) or to an object (drawn for each). A backend says which of them it draws; a new one is
a row here and its use in a backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfsight.synthesis.distributions import Constant, Spread, Uniform, Value

Kind = Literal["number", "whole", "name"]
"""What its values are. Names are built in, or files: of a folder each of its images is one value."""


@dataclass(frozen=True)
class Factor:
    """One thing that varies: `low` and `high` are what is possible at all, `usual` what is drawn where a spec is silent."""

    of: Literal["picture", "object"]
    says: str
    usual: Spread
    low: float | None = None
    high: float | None = None
    kind: Kind = "number"

    def cast(self, value: Value) -> Value:
        """The value as its kind has it, so that a column of a table is of one type."""
        return {"number": float, "whole": int, "name": str}[self.kind](value)

    def within(self, value: float) -> float:
        """The nearest number that is possible."""
        return max(self.low if self.low is not None else value, min(self.high if self.high is not None else value, value))


def _number(of: Literal["picture", "object"], low: float, high: float, usual: Spread | float, says: str) -> Factor:
    return Factor(of, says, usual if isinstance(usual, Spread) else Constant(value=usual), low, high)


def _whole(low: int, high: int, usual: int, says: str) -> Factor:
    return Factor("picture", says, Constant(value=usual), low, high, "whole")


def _name(of: Literal["picture", "object"], usual: str, says: str) -> Factor:
    return Factor(of, says, Constant(value=usual), kind="name")


def _spread(low: float, high: float) -> Uniform:
    return Uniform(uniform=(low, high))


FACTORS: dict[str, Factor] = {
    # Objects: what and where.
    "asset": _name("object", "", "which of the assets of its class; given in `classes`, not in `factors`"),
    "size": _number("object", 0.01, 3, _spread(0.3, 0.6), "diameter of its bounding circle or sphere; 1 is the shorter side"),
    "x": _number("object", -0.5, 1.5, _spread(0.35, 0.65), "place of its centre from left (0) to right (1)"),
    "y": _number("object", -0.5, 1.5, _spread(0.35, 0.65), "place of its centre from top (0) to bottom (1)"),
    "rotation": _number("object", -360, 720, _spread(0, 360), "degrees in the picture; in a rendered scene, about the vertical"),
    "pitch": _number("object", -180, 180, 0.0, "degrees that it leans towards the viewer"),
    "roll": _number("object", -180, 180, 0.0, "degrees that it leans sideways"),
    # Objects: surface.
    "texture": _name("object", "own", "its surface: `own`, a built-in pattern, or an image"),
    "texture_scale": _number("object", 0.02, 2, 0.25, "period of the pattern in diameters of the object"),
    "texture_contrast": _number("object", 0, 1, 0.75, "deviation of a built-in pattern; 1 is half-way to black and white"),
    "hue": _number("object", -360, 720, _spread(0, 360), "degrees on the colour circle; where a surface has no own colours"),
    "saturation": _number("object", 0, 1, 0.5, "0 is grey; where a surface has no own colours"),
    "brightness": _number("object", 0, 1, 0.7, "0 is black; where a surface has no own colours"),
    "roughness": _number("object", 0, 1, 0.5, "0 is a mirror, 1 is chalk"),
    "metallic": _number("object", 0, 1, 0.0, "1 is a metal"),
    # The picture: how many, and what is in the way.
    "count": _whole(0, 250, 1, "labelled objects"),
    "occlusion": _number("picture", 0, 0.9, 0.0, "share of the first object that a thing of no class hides"),
    "distractors": _whole(0, 250, 0, "things of no class, which lie behind the objects"),
    "drop": _number("picture", 0, 10, 0.0, "height from which objects fall before the picture is taken; 1 is the shorter side"),
    # The picture: place and ground.
    "scenery": _name("picture", "none", "where things stand, in metres: `none`, a built-in place, or a model file"),
    "background": _name("picture", "mottled", "what lies behind: a built-in ground, or photographs"),
    "background_hue": _number("picture", -360, 720, _spread(0, 360), "degrees on the colour circle; of built-in grounds"),
    "background_saturation": _number("picture", 0, 1, 0.2, "0 is grey; of built-in grounds"),
    "background_brightness": _number("picture", 0, 1, 0.5, "0 is black; of built-in grounds"),
    # The picture: light.
    "light": _number("picture", 0, 10, 1.0, "strength of all light; 1 exposes well, 2 is one stop more"),
    "lights": _whole(0, 4, 1, "lamps, spread evenly around the scene"),
    "light_azimuth": _number("picture", -360, 720, _spread(0, 360), "degrees clockwise to where a lamp stands; 0 is above"),
    "light_elevation": _number("picture", 5, 90, 45.0, "degrees of the lamps above the ground; low ones cast long shadows"),
    "light_temperature": _number("picture", 1500, 15000, 6500.0, "colour of the lamps in kelvin; 6500 is white"),
    "ambient": _number("picture", 0, 1, 0.5, "share of the light that comes from everywhere and casts no shadow"),
    "hdri": _name("picture", "none", "surroundings that give the ambient light: `none`, or panoramas (.hdr, .exr)"),
    # The picture: camera.
    "distance": _number("picture", 0.1, 20, 1.0, "of the camera; from 1, with 50 mm, sizes and places are as given"),
    "focal_length": _number("picture", 8, 400, 50.0, "millimetres; the picture's shorter side is 36 mm on the sensor"),
    "camera_azimuth": _number("picture", -360, 360, 0.0, "degrees by which the camera goes around the scene"),
    "camera_elevation": _number("picture", 1, 90, 45.0, "degrees of the camera above the ground"),
    # The picture: sensor.
    "auto_exposure": _number("picture", 0, 1, 0.0, "how far the camera evens out the mean: 0 not at all, 1 to middle grey"),
    "blur": _number("picture", 0, 20, 0.0, "deviation of a Gaussian in pixels"),
    "noise": _number("picture", 0, 1, 0.01, "deviation a pixel and channel; 1 is full scale"),
    "jpeg": _whole(1, 100, 100, "quality at which the picture was compressed once; 100 is not at all"),
}
