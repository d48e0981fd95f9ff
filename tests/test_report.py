"""The report is one file that opens offline, says the verdict first, and holds only what it should."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from results_folder import CHALLENGER, INCUMBENT, PETS, build, keys_of
from selfsight import results as results_file
from selfsight.errors import InputError
from selfsight.reporting import outcomes, render, words
from selfsight.reporting.folder import class_indices, load
from selfsight.reporting.html import script_json
from selfsight.results import Score


class Tags(HTMLParser):
    """Every start tag with its attributes, and the text of each script by its id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def ids(self) -> set[str]:
        return {attrs["id"] or "" for _, attrs in self.tags if "id" in attrs}


def page_of(folder: Path, images: bool = True) -> str:
    """The page without the library that draws it."""
    return render(folder, images=images).read_text(encoding="utf-8").replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results")
    build(path)
    return path


def test_the_verdict_stands_first_and_in_words(folder: Path) -> None:
    verdict = results_file.read(folder).verdict
    assert verdict is not None
    page = html.unescape(page_of(folder))
    size = words.number(abs(verdict.difference))
    bounds = f"(95 % interval {words.signed(verdict.low)} to {words.signed(verdict.high)}, 60 test images)"
    sentence = f"Keep {INCUMBENT}: {CHALLENGER} is {size} points worse in linear top-1 {bounds}."
    assert sentence in page
    assert page.index(sentence) < page.index('<section id="scores">')
    assert "the margin of 1.0 point" in page and verdict.reason.rstrip(".") in page


def test_an_undecided_verdict_says_how_many_images_would_settle_it(tmp_path: Path) -> None:
    results = build(tmp_path)
    assert results.verdict is not None
    verdict = results.verdict.model_copy(
        update={"decision": "undecided", "needed_n": 4200, "difference": 0.4, "low": -1.2, "high": 2.0}
    )
    results_file.write(results.model_copy(update={"verdict": verdict}), tmp_path)
    page = html.unescape(page_of(tmp_path))
    assert f"Undecided: {CHALLENGER} measures 0.4 points better than {INCUMBENT} in linear top-1" in page
    assert "About 4\N{NARROW NO-BREAK SPACE}200 labelled test images" in page


def test_the_page_asks_nothing_of_the_network(folder: Path) -> None:
    whole = render(folder).read_text(encoding="utf-8")
    page = whole.replace(get_plotlyjs(), "")
    assert whole.count(get_plotlyjs()) == 1
    for tag, attributes in Tags(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|@import|url\(", page)


def test_without_images_there_is_no_picture_and_no_file_name(folder: Path) -> None:
    page = page_of(folder, images=False)
    assert "data:image" not in page and "base64,/9j" not in page
    assert json.loads(Tags(page).scripts["thumbs"]) == []
    for key in [*keys_of(60), "IMG_", "camera-7"]:
        assert key not in page
    assert "Made without pictures" in page
    assert not {"gallery", "neighbours"} & Tags(page).ids()


def test_each_picture_is_embedded_once(folder: Path) -> None:
    thumbs = json.loads(Tags(page_of(folder)).scripts["thumbs"])
    assert len(thumbs) == 54 == len(set(thumbs))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    classes = [
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(2)>",
        "<a href='http://evil'>%{x}</a>",
        "<!-- & \u2028",
    ]
    build(tmp_path, classes=classes)
    page = page_of(tmp_path)
    assert "<script>alert" not in page and "<img src=x" not in page and "<a href='http" not in page
    tags = Tags(page)
    assert [attrs.get("id") for tag, attrs in tags.tags if tag == "script"] == ["thumbs", "plots", None, None]
    plots = json.loads(tags.scripts["plots"])
    drawn = json.dumps([plots["plot-confusion-incumbent"], [{**trace, "meta": None} for trace in plots["plot-map-0"]["data"]]])
    assert "&lt;script&gt;" in drawn and "<script" not in drawn and "<a href" not in drawn and "onerror=alert(2)>" not in drawn
    assert "%{x}" not in drawn


def test_json_in_the_page_cannot_end_its_script() -> None:
    text = script_json(json.dumps(["</script><!--", "&\u2029"], ensure_ascii=False))
    assert not set("<>&\u2029") & set(text)
    assert json.loads(text) == ["</script><!--", "&\u2029"]


def test_without_labels_the_page_says_what_to_label(tmp_path: Path) -> None:
    build(tmp_path, labels=False)
    page = html.unescape(page_of(tmp_path))
    assert "No labels, so no verdict: label 150 images" in page
    assert {"labelling", "neighbours", "map", "curves", "cost"} <= Tags(page).ids()
    assert not {"scores", "differences", "classes", "gallery"} & Tags(page).ids()
    assert keys_of(1)[0] in page
    hidden = page_of(tmp_path, images=False)
    assert "label 150 images" in hidden and "IMG_" not in hidden and "labelling" not in Tags(hidden).ids()


def test_the_confusion_is_the_one_counted_by_hand() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 2, 2, 2, -1]), np.array([0, 1, 1, 1, 0, 2, 2, -1, 0])
    matrix = outcomes.confusion_matrix(truth, said, 3)
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 2]]
    assert outcomes.recall(truth, said, 4)[:3] == pytest.approx([100 / 3, 50, 200 / 3])
    assert np.isnan(outcomes.recall(truth, said, 4)[3])
    assert outcomes.most_confused(matrix) == [(0, 1, 2), (1, 0, 1)]


def test_the_drawn_confusion_counts_the_outcomes_of_the_endpoint(folder: Path) -> None:
    table = load(folder).outcomes
    counts = np.zeros((10, 10))
    for row in range(len(table["key"])):
        if (table["encoder"][row], table["task"][row], table["metric"][row]) == (CHALLENGER, "linear", "top1"):
            counts[table["label"][row], table["predicted"][row]] += 1
    drawn = json.loads(Tags(page_of(folder)).scripts["plots"])["plot-confusion-challenger"]["data"][0]["z"]
    assert np.allclose(drawn, 100 * counts / counts.sum(axis=1, keepdims=True), atol=0.051)


def test_disagreements_add_up_to_the_paired_counts(folder: Path) -> None:
    loaded = load(folder)
    pair = outcomes.paired(loaded, INCUMBENT, CHALLENGER, ("linear", "top1", "clean"))
    assert pair is not None
    paired = next(c for c in loaded.results.comparisons if (c.a, c.task, c.metric) == (INCUMBENT, "linear", "top1"))
    counts = [outcomes.disagreements(pair, right, 5, {})[0] for right in ("incumbent", "challenger")]
    assert counts == [paired.only_a, paired.only_b]


def test_labels_may_be_names_or_indices() -> None:
    assert class_indices(["Pug", 3, None, "no such", 99, float("nan")], PETS).tolist() == [6, 3, -1, -1, -1, -1]


def test_many_classes_are_told_as_pairs(tmp_path: Path) -> None:
    build(tmp_path, classes=[f"kind {index}" for index in range(31)], n=120)
    plots = json.loads(Tags(page_of(tmp_path)).scripts["plots"])
    assert "plot-confusion-incumbent" not in plots
    assert len(plots["plot-classes"]["data"][0]["x"]) == 30


def test_a_section_without_data_is_left_out_with_its_link(tmp_path: Path) -> None:
    build(tmp_path, assets=False)
    (tmp_path / "per_image.parquet").unlink()
    tags = Tags(page_of(tmp_path))
    gone = {"map", "curves", "neighbours", "gallery", "classes", "shifts", "labelling"}
    assert not gone & tags.ids()
    assert {"scores", "differences", "cost", "data", "repeat"} <= tags.ids()
    links = {(attrs.get("href") or "")[1:] for tag, attrs in tags.tags if tag == "a"}
    assert links <= tags.ids() and not gone & links
    held = {attrs["id"] for _, attrs in tags.tags if attrs.get("class") == "plot"}
    assert held == set(json.loads(tags.scripts["plots"]))


def test_every_figure_has_its_place(folder: Path) -> None:
    tags = Tags(page_of(folder))
    held = [attrs["id"] for _, attrs in tags.tags if attrs.get("class") == "plot"]
    assert len(held) == len(set(held)) == 15
    assert set(held) == set(json.loads(tags.scripts["plots"]))


def test_curves_with_holes_and_numbers_that_are_none_are_drawn(tmp_path: Path) -> None:
    build(tmp_path)
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3}, {"step": 4, "loss": 1.0, "knn_top1": None}]
    (tmp_path / "assets" / "curves.json").write_text(json.dumps([{"encoder": CHALLENGER, "rows": rows}]))
    plots = json.loads(Tags(page_of(tmp_path)).scripts["plots"])
    assert plots["plot-curve-loss"]["data"][0]["y"] == [2.0, 1.0]
    assert "plot-curve-knn_top1" not in plots


def test_shifts_and_seeds_are_told(tmp_path: Path) -> None:
    results = build(tmp_path)
    more = [Score(encoder=INCUMBENT, task="knn", metric="top1_k20", condition="fog-3", value=40, low=35, high=45, n=60),
            Score(encoder=INCUMBENT, task="linear", metric="top1", value=99, low=98, high=100, n=60, seed=1)]  # fmt: skip
    results_file.write(results.model_copy(update={"scores": results.scores + more}), tmp_path)
    page = html.unescape(page_of(tmp_path))
    assert 'id="shifts"' in page and "fog-3" in page and "k-NN top-1, k = 20" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "2 seeds" in page and "to 99.0" in page


def test_the_command_can_be_copied_into_a_shell(folder: Path) -> None:
    assert "selfsight compare data/pets/train --encoder runs/demo --out 'my results'" in html.unescape(page_of(folder))


@pytest.mark.parametrize("text", ["linear top1", "linear/top1", "linear:top1", "task linear, metric top1 (clean)"])
def test_the_endpoint_is_found_however_it_is_written(folder: Path, text: str) -> None:
    results = results_file.read(folder)
    assert results.verdict is not None
    results = results.model_copy(update={"verdict": results.verdict.model_copy(update={"endpoint": text})})
    assert words.endpoint(results) == ("linear", "top1", "clean")


def test_numbers_are_set_as_in_print() -> None:
    assert [words.signed(-21.44), words.signed(0.04), words.signed(-0.04), words.number(12345, 0)] == [
        "\N{MINUS SIGN}21.4", "0.0", "0.0", "12\N{NARROW NO-BREAK SPACE}345"]  # fmt: skip
    assert [words.count(4_652_008), words.count(86e6), words.count(0), words.p_value(1e-9), words.p_value(0.25)] == [
        "4.7 M", "86 M", "0", "< 0.001", "0.250"]  # fmt: skip


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results\.json"):
        render(tmp_path)


def test_a_broken_asset_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "assets" / "map.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"map\.parquet"):
        render(tmp_path / "copy")
