"""`selfsight views`: the sheet shows what a training sees, and the pace is that of this machine; domains in a training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

import pictures
import selfsight
from selfsight.api.training import plan_training
from selfsight.api.viewing import wait_share
from selfsight.cli import main
from selfsight.data.loader import open_sample, view_batches
from selfsight.data.presets import PUBLISHED, small
from selfsight.data.sheet import MAX_WIDTH, changes, described, draw_sheet, sheet_row
from selfsight.data.sources import Source, open_source
from selfsight.data.timing import stage_seconds, worker_speed
from selfsight.data.views import ViewSettings, draw_photometry, view_uniforms
from selfsight.errors import ConfigError, DataError
from selfsight.sheets import fitted, wrapped
from selfsight.ssl.settings import TrainSettings

CPU = torch.device("cpu")
CELL = 224
LEFT = 24 + CELL + 20  # margin, the image column of pictures of 32 px, and the gap after it
STEP = CELL + 6 + 20  # a global view, its frame, the gap


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images of 32 px and one that is none."""
    folder = pictures.folder(tmp_path_factory.mktemp("broken"), 11, labelled=False)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff damaged")
    return folder


@pytest.fixture(scope="module")
def made(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return selfsight.views(broken, tmp_path_factory.mktemp("out") / "deep" / "sheet.png", images=12)


def rows_of(source: Source, settings: ViewSettings, count: int, seed: int = 0) -> list[Any]:
    return [sheet_row(source.keys[i], open_sample(source, i, settings.read), i, seed, settings) for i in range(count)]


# --- the sheet ------------------------------------------------------------------------------------------------------


def test_a_sheet_has_a_row_for_each_image_and_names_those_it_leaves_out(made: dict[str, Any]) -> None:
    assert sorted(made["images"]) == [f"{i:04d}.png" for i in range(11)]
    assert made["bad_images"] == [{"key": "damaged.jpg", "reason": "no known image format"}]
    with Image.open(made["sheet"]) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width == LEFT + 2 * STEP + 96 + 24
        assert sheet.height > 11 * CELL


def test_it_shows_different_pixels_in_every_view(made: dict[str, Any]) -> None:
    cells = _cells(pixels_of(made), first_row(made))
    assert all(cell.std() > 1 for cell in cells)
    for i, cell in enumerate(cells):
        for other in cells[i + 1 :]:
            assert np.abs(cell.astype(int) - other).mean() > 1


def pixels_of(made: dict[str, Any]) -> np.ndarray:
    with Image.open(made["sheet"]) as sheet:
        return np.asarray(sheet)


def first_row(made: dict[str, Any]) -> int:
    """Where the first row of global views begins: below the first orange frame."""
    sheet = pixels_of(made)
    return int(np.flatnonzero((sheet[:, LEFT + 50] == (213, 94, 0)).all(1))[0])


def _cells(sheet: np.ndarray, top: int) -> list[np.ndarray]:
    """The image and two global views of a row."""
    lefts = (24, LEFT + 3, LEFT + STEP + 3)
    return [sheet[top + 3 : top + 3 + CELL, left : left + CELL] for left in lefts]


def test_the_views_on_the_sheet_are_the_tensors_of_a_training(broken: Path) -> None:
    source = open_source(broken)
    settings = small().model_copy(update={"local_count": 2})
    rows = rows_of(source, settings, 1, seed=3)
    sheet = np.asarray(draw_sheet(rows, settings, "title", ["note"]))
    top = int(np.flatnonzero((sheet[:, LEFT + 50] == (213, 94, 0)).all(1))[0])
    batches = view_batches(source, settings, batch_size=len(source), seed=3, workers=0, finish=True).items(0, 1)
    (batch,) = batches
    order = [row for row in range(batch.size) if np.array_equal(_levels(batch.views[0][row], settings), rows[0].views[0])]
    assert len(order) == 1
    for view, cell in enumerate(_cells(sheet, top)[1:]):
        expected = _levels(batch.views[0][order[0] + view * batch.size], settings)
        np.testing.assert_array_equal(cell, expected.repeat(7, axis=0).repeat(7, axis=1))


def _levels(view: torch.Tensor, settings: ViewSettings) -> np.ndarray:
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    return ((view * std + mean) * 255).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)


def test_the_settings_are_those_that_train_would_derive(broken: Path, made: dict[str, Any]) -> None:
    settings, _, _ = plan_training(open_source(broken), "dino", None, {}, None, ())
    assert made["views"] == settings.views.model_dump(mode="json")
    assert (made["recipe"], made["domain"], made["workers"]) == ("dino", "photos", settings.workers)


def test_it_shows_the_first_images_of_the_first_epoch(tmp_path: Path) -> None:
    data = pictures.parquet(tmp_path / "images.parquet", 40)
    found = selfsight.views(data, tmp_path / "sheet.jpg", images=3, seed=5, recipe="small", workers=0)
    source = open_source(data)
    first = source.draws(5, 0, np.arange(3)).indices
    assert found["images"] == [source.keys[int(i)] for i in first]
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
    assert found["views"] == small().model_dump(mode="json")
    assert found["wait_share"] is found["network_images_per_second"] is None


def test_published_views_take_a_domain_and_settings_of_their_own(broken: Path, tmp_path: Path) -> None:
    found = selfsight.views(
        broken,
        tmp_path / "sheet.png",
        images=1,
        recipe="dinov2-paper",
        domain="documents",
        set=["views.local_count=2", "views.flip=0.1"],
    )["views"]
    assert (found["blur"], found["hue"], found["flip"], found["local_count"]) == ([1.0, 0.1, 0.5], 0.0, 0.1, 2)
    assert found["global_scale"] == [0.5, 1.0]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_other_channels_show_the_first_three(tmp_path: Path, channels: int) -> None:
    data = tmp_path / "bands"
    data.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        bands = rng.integers(0, 255, (40, 50, channels), dtype=np.uint8)
        tifffile.imwrite(
            data / f"{i}.tif", bands.squeeze(), photometric="minisblack", planarconfig="contig" if channels > 1 else None
        )
    found = selfsight.views(data, tmp_path / "s.png", images=2, recipe="small", domain="microscopy", channels=channels, workers=0)
    assert found["views"]["read"]["channels"] == len(found["views"]["mean"]) == channels
    assert np.allclose(found["views"]["mean"], 0.5, atol=0.05)
    settings = ViewSettings.model_validate(found["views"])
    row = rows_of(open_source(data), settings, 1)[0]
    stored = tifffile.imread(data / "0.tif").reshape(40, 50, channels)
    expected = {1: stored.repeat(3, axis=2), 2: np.pad(stored, ((0, 0), (0, 0), (0, 1)))}.get(channels, stored[:, :, :3])
    np.testing.assert_array_equal(row.image, expected)


@pytest.mark.parametrize("size", [(1200, 90), (90, 1200), (3, 5), (640, 640), (33, 31)])
def test_images_of_any_shape_fit_their_place(size: tuple[int, int]) -> None:
    picture = fitted(np.zeros((size[1], size[0], 3), np.uint8), CELL)
    assert picture.height <= CELL
    assert picture.width <= 1.5 * CELL
    if max(size) < 100:
        assert (picture.width % size[0], picture.height % size[1]) == (0, 0)
    assert picture.height > CELL - size[1] or picture.width > 1.5 * CELL - size[0] - 1


@pytest.mark.parametrize(
    "changed", [{"local_count": 0}, {"local_count": 60}, {"global_size": 640, "local_size": 320}, {"local_size": 8}]
)
def test_sheets_of_any_settings_stay_within_their_width(broken: Path, changed: dict[str, Any]) -> None:
    settings = small().model_copy(update=changed)
    sheet = draw_sheet(rows_of(open_source(broken), settings, 2), settings, "a title " * 80, described(settings))
    assert 800 <= sheet.width <= MAX_WIDTH


def test_boxes_are_drawn_where_views_are_cut(broken: Path) -> None:
    source = open_source(broken)
    settings = small().model_copy(update={"local_count": 0})
    row = rows_of(source, settings, 1)[0]
    sheet = np.asarray(draw_sheet([row], settings, "title", []))
    top = int(np.flatnonzero((sheet[:, LEFT + 50] == (213, 94, 0)).all(1))[0]) + 3
    left, upper, right, lower = (7 * row.boxes[1]).tolist()
    for y, x in ((upper, left), (upper, right - 1), (lower - 1, left), (lower - 1, right - 1)):
        assert tuple(sheet[top + y, 24 + x]) == (0, 114, 178)


def test_captions_say_what_was_done() -> None:
    settings = ViewSettings(quarter_turns=True, vertical_flip=0.5)
    draws = draw_photometry(view_uniforms(0, 0, range(300), 0, 1), 1, settings)
    for row in range(300):
        words = changes(draws, row)
        assert ("flip" in words) == draws.flip[row]
        assert ("vertical flip" in words) == draws.vertical[row]
        assert ("grey" in words) == draws.grey[row]
        assert ("solarise" in words) == draws.solarize[row]
        assert any(word.startswith("blur") for word in words) == (draws.sigma[row] > 0)
        assert any(word.endswith("\N{DEGREE SIGN}") for word in words) == (draws.quarters[row] > 0)
    nothing = ViewSettings(flip=0, jitter=0, grey=0, solarize=0, blur=(0, 0, 0))
    assert changes(draw_photometry(view_uniforms(0, 0, [0], 0, 1), 1, nothing)) == ["unchanged"]


def test_what_the_settings_say_is_written_above() -> None:
    said = " ".join(described(PUBLISHED["dinov2"]))
    for words in ("224 px from 0.32 to 1", "8 local ones of 98 px", "flip 0.5", "blur 0 / 0.9 / 0.5", "solarise 0.2"):
        assert words in said
    plain = " ".join(described(small().model_copy(update={"solarize": 0.0})))
    assert "no blur, no solarising" in plain


def test_lines_break_between_words_alone() -> None:
    assert wrapped(["flip", "grey"], 500) == ["flip, grey"]
    assert wrapped(["flip", "grey"], 10) == ["flip", "grey"]
    assert wrapped([], 10) == []


# --- the pace -------------------------------------------------------------------------------------------------------


def test_the_numbers_are_all_there_and_go_together(made: dict[str, Any]) -> None:
    stages = [made[f"{stage}_ms"] for stage in ("read", "decode", "crop", "photometry")]
    assert min(stages) > 0
    assert made["worker_images_per_second"] == pytest.approx(1000 / sum(stages))
    assert made["timed_images"] == 11
    assert made["loader_images_per_second"] > 0
    assert made["network_images_per_second"] > 0
    assert 0 <= made["wait_share"] < 1


class Slow(Source):
    """A source of which each read takes `seconds`."""

    def __init__(self, inner: Source, seconds: float) -> None:
        self.inner, self.seconds = inner, seconds
        self.location, self.keys, self.labels, self.classes = inner.location, inner.keys, None, ()

    def image_bytes(self, index: int) -> bytes:
        time.sleep(self.seconds)
        return self.inner.image_bytes(index)

    def columns(self) -> tuple[str, ...]:
        return ()

    def column(self, name: str) -> np.ndarray:
        raise NotImplementedError


def test_a_slow_disk_is_seen_in_reading_alone(broken: Path) -> None:
    fast, slow = (stage_seconds(Slow(open_source(broken), s), range(12), small(), 0, CPU) for s in (0.0, 0.03))
    assert (fast.images, slow.images) == (11, 11)
    assert slow.read - fast.read == pytest.approx(0.03 * 12 / 11, rel=0.3)
    assert slow.decode + slow.crop + slow.photometry < 0.03


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_deliver_what_the_disk_allows(broken: Path, workers: int) -> None:
    source = Slow(open_source(broken), 0.02)
    found = worker_speed(source, small(), batch_size=4, seed=0, workers=workers, finish=True, one=40.0)
    assert 10 < found <= 50


def test_timing_leaves_the_number_of_threads_as_it_was(broken: Path) -> None:
    torch.set_num_threads(2)
    stage_seconds(open_source(broken), range(2), small(), 0, CPU)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("loader", "network", "workers", "share"),
    [(100, 50, 1, 0.0), (50, 100, 1, 0.5), (25, 100, 4, 0.75), (50, 50, 0, 0.5), (0, 9, 2, 1.0)],
)
def test_waiting_is_what_the_workers_lack(loader: float, network: float, workers: int, share: float) -> None:
    assert wait_share(loader, network, workers) == pytest.approx(share)


def test_with_almost_no_readable_image_there_are_still_numbers(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i:03d}.png").write_bytes(b"junk")
    pictures.noise(tmp_path / "good.png")
    seed = next(s for s in range(99) if _place_of_good(tmp_path, s, 0) < 60 <= 64 <= _place_of_good(tmp_path, s, 1))
    found = selfsight.views(tmp_path, tmp_path / "s.png", images=2, seed=seed, recipe="small", workers=0)
    assert (found["images"], found["timed_images"], found["worker_images_per_second"]) == (["good.png"], 0, 0.0)


def _place_of_good(folder: Path, seed: int, epoch: int) -> int:
    source = open_source(folder)
    return source.draws(seed, epoch, np.arange(len(source))).indices.tolist().index(source.keys.index("good.png"))


# --- the command ----------------------------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0)


def test_the_command_prints_the_table_and_what_was_left_out(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["views", str(broken), "--out", str(tmp_path / "s.png"), "--images", "12", "--recipe", "small"]) == 0
    said = capsys.readouterr().out
    for words in ("decode", "photometry", "images/s", "11 images", "1 files left out, first damaged.jpg (no known image format)"):
        assert words in said
    assert (tmp_path / "s.png").is_file()


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["views", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--out", "--recipe", "--domain", "--images", "--seed", "--set", "--workers", "--device", "--channels"):
        assert option in said
    run(["train", "--help"])
    assert "--domain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "--out", "sheet.gif"], "--out sheet.gif: expected a file that ends in .png or .jpg"),
        (["data", "--out", "sheet"], "ends in .png or .jpg"),
        (["data", "--out", "folder.png"], "--out folder.png: is a folder"),
        (["data", "--out", "s.png", "--images", "0"], "--images: expected 1 to 64. Got 0."),
        (["data", "--out", "s.png", "--images", "65"], "--images: expected 1 to 64. Got 65."),
        (["data", "--out", "s.png", "--recipe", "dinov4"], "no recipe 'dinov4'. Did you mean 'dinov3'?"),
        (["data", "--out", "s.png", "--domain", "arial"], "no domain 'arial'. Did you mean 'aerial'?"),
        (["data", "--out", "s.png", "--recipe", "small", "--domain", "fotos"], "Did you mean 'photos'?"),
        (["data", "--out", "s.png", "--set", "views.gray=0"], "Did you mean 'grey'?"),
        (["data", "--out", "s.png", "--recipe", "dinov2-paper", "--set", "views.gray=0"], "Did you mean 'grey'?"),
        (["data", "--out", "s.png", "--recipe", "dinov2-paper", "--set", "epochs=3"], "--set epochs"),
        (["data", "--out", "s.png", "--device", "gpu"], "expected auto, cpu, cuda"),
        (["nowhere", "--out", "s.png"], "nowhere: does not exist"),
        (["junk", "--out", "s.png"], "0.png: no known image format"),
        (["junk", "--out", "s.png", "--recipe", "dinov2-paper"], "none of the 3 images"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pictures.folder(tmp_path / "data", 4, classes=1)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "junk").mkdir()
    for i in range(3):
        (tmp_path / "junk" / f"{i}.png").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)
    assert run(["views", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "folder.png", "junk"]


# --- a training's domain --------------------------------------------------------------------------------------------


def planned(data: Path, *sets: str, file: Path | None = None, **given: Any) -> tuple[TrainSettings, dict[str, str]]:
    settings, derived, _ = plan_training(open_source(data), "dino", None, given, file, sets)
    return settings, {row.key: row.why for row in derived}


def test_a_training_is_of_photos_unless_it_is_told(broken: Path) -> None:
    settings, why = planned(broken)
    assert settings.domain == "photos"
    assert not any(reason.startswith("domain") for reason in why.values())


def test_a_domain_is_derived_with_its_reason_on_top_of_the_recipe(broken: Path) -> None:
    plain, _ = planned(broken)
    settings, why = planned(broken, domain="aerial")
    assert settings.domain == "aerial"
    assert (why["views.vertical_flip"], why["views.quarter_turns"]) == ("domain aerial", "domain aerial")
    assert settings.views == plain.views.model_copy(update={"vertical_flip": 0.5, "quarter_turns": True})


def test_a_domain_takes_the_place_of_what_the_recipe_says_and_settings_that_of_the_domain(broken: Path) -> None:
    settings, why = planned(broken, "views.hue=0.02", domain="documents")
    assert settings.views.local_scale == (0.2, 0.5)
    assert why["views.local_scale"] == "domain documents"
    assert settings.views.blur == (0.0, 0.0, 0.0)
    assert settings.views.hue == 0.02
    assert "views.hue" not in why


def test_a_domain_may_stand_in_a_file_and_is_not_contradicted(broken: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("domain: microscopy\n")
    assert planned(broken, file=file)[0].views.stain == 0.05
    assert planned(broken, file=file, domain="aerial")[0].views.stain == 0
    file.write_text(yaml.safe_dump(planned(broken, domain="microscopy")[0].model_dump(mode="json")))
    assert planned(broken, file=file, domain="microscopy")[0].domain == "microscopy"
    with pytest.raises(ConfigError, match=r"--domain aerial: the views in .*settings.yaml are those of the domain microscopy"):
        planned(broken, file=file, domain="aerial")
    with pytest.raises(ConfigError, match="no domain 'x'"):
        planned(broken, "domain=x")


def test_a_run_remembers_its_domain(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny = {"backbone": {"name": "vit_w32_d1_p8"}, "workers": 0, "threads": 1, "batch_size": 4}
    tiny["objective"] = {"head": {"prototypes": 64}}
    selfsight.train(broken, out, domain="aerial", epochs=1, set=tiny, max_bad=20)
    kept = yaml.safe_load((out / "config.yaml").read_text())
    assert (kept["domain"], kept["views"]["quarter_turns"]) == ("aerial", True)
    with pytest.raises(SystemExit) as left:
        main(["train", "--out", str(out), "--resume", "--domain", "photos"])
    assert left.value.code == 2


def test_an_unreadable_source_is_an_error_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a\.png: no known image format"):
        selfsight.views(tmp_path, tmp_path / "s.png", recipe="dinov2-paper")
