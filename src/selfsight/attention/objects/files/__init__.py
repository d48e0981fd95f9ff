"""What objects are written as.

To add one: a file here with a `Form`, and a line in `FORMS`; `tests/test_objects_files.py` reads every entry back.
"""

from __future__ import annotations

from pathlib import Path

from selfsight.attention.objects.files.base import Form, check_names
from selfsight.attention.objects.files.coco import Coco
from selfsight.attention.objects.files.masks import Masks
from selfsight.attention.objects.files.yolo import Yolo, YoloSegments
from selfsight.errors import ConfigError, InputError, nearest
from selfsight.runs import place_for_file, place_for_folder

FORMS: dict[str, Form] = {"coco": Coco(), "yolo": Yolo(), "yolo-seg": YoloSegments(), "masks": Masks()}


def form_and_place(out: str | Path, format: str | None) -> tuple[Form, Path]:
    """What to write, and where: by the `format`, or by the ending of `out`. `InputError` where it cannot be, or where something
    else is."""
    if format is not None and format not in FORMS:
        raise ConfigError(f"--format: no format '{format}'. {nearest(format, FORMS)}")
    is_json = Path(out).suffix.lower() == ".json"
    folders = ", ".join(name for name, form in FORMS.items() if form.folder)
    if format is None and not is_json:
        raise InputError(f"--out {out}: expected a file that ends in .json (COCO), or --format {folders} for a folder")
    form = FORMS[format or "coco"]
    if form.folder == is_json:
        raise InputError(f"--out {out}: --format {format} writes a {'folder' if form.folder else 'file that ends in .json'}")
    if not form.folder:
        path = place_for_file(out)
        if path.is_file() and path.stat().st_size and form.about(path) is None:
            raise InputError(f"--out {out}: is there already and not of objects; give another --out")
        return form, path
    path = place_for_folder(out)
    if path.is_dir() and any(path.iterdir()) and form.about(path) is None:
        raise InputError(f"--out {out}: is not empty; expected a new folder")
    return form, path


__all__ = ["FORMS", "Form", "check_names", "form_and_place"]
