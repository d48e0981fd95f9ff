"""Settings: read, written, overridden; what is wrong is said by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from selfsight.config import Settings, build, dump, load, merge, parse_overrides, read_yaml
from selfsight.errors import ConfigError, nearest
from selfsight.runs import append_jsonl, read_jsonl, write_atomic, write_text_atomic


class Inner(Settings):
    temperature: float = Field(0.04, gt=0)
    scale: tuple[float, float] = (0.4, 1.0)


class Outer(Settings):
    name: str = "größe"
    steps: int = Field(5, ge=1)
    limit: int | None = None
    inner: Inner = Inner()
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "here: no setting 'stepz'. Did you mean 'steps'?"),
        ({"inner": {"temprature": 1}}, "here: no setting 'inner.temprature'. Did you mean 'temperature'?"),
        ({"maybe": {"scal": 1}}, "here: no setting 'maybe.scal'. Did you mean 'scale'?"),
        ({"qqq": 3}, "here: no setting 'qqq'. Valid are: inner, limit, maybe, name, steps."),
        ({3: 3}, "here: no setting '3'. Valid are: inner, limit, maybe, name, steps."),
        ({"steps": 0}, "here: 'steps': Input should be greater than or equal to 1. Got 0."),
        ({"inner": {"temperature": "hot"}}, "'inner.temperature': Input should be a valid number"),
        ({"inner": {"temperature": float("nan")}}, "'inner.temperature': Input should be a finite number. Got nan."),
        ({"inner": 3}, "here: 'inner': Input should be a valid dictionary"),
        ({"inner": {"scale": [1]}}, "'inner.scale"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values: dict[object, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Outer, values, "here")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_what_is_dumped_loads_to_the_same_settings(tmp_path: Path) -> None:
    settings = Outer(steps=7, inner=Inner(temperature=1e-5, scale=(0.1, 0.2)), maybe=Inner())
    (tmp_path / "config.yaml").write_text(dump(settings), encoding="utf-8")
    assert load(Outer, tmp_path / "config.yaml") == settings
    assert "größe" in dump(settings)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Outer().steps = 9  # type: ignore[misc]


def test_overrides_are_yaml_under_dotted_keys() -> None:
    pairs = ["steps=4", "inner.temperature=1e-3", "inner.scale=[0.1, 1]", "name=a=b", "limit=null", "name2="]
    assert parse_overrides(pairs) == {
        "steps": 4,
        "inner": {"temperature": "1e-3", "scale": [0.1, 1]},
        "name": "a=b",
        "limit": None,
        "name2": None,
    }
    settings = build(Outer, parse_overrides(pairs[:3]), "--set")
    assert settings.inner == Inner(temperature=0.001, scale=(0.1, 1.0))


@pytest.mark.parametrize("pair", ["steps", "=3", "", "steps=[1", "steps: 3"])
def test_an_override_that_is_no_key_and_value_says_so(pair: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_overrides([pair])


@pytest.mark.parametrize("pairs", [["inner=3", "inner.temperature=1"], ["inner=", "inner.temperature=1"]])
def test_a_value_and_a_setting_under_it_contradict_each_other(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match="inner"):
        build(Outer, parse_overrides(pairs), "--set")


def test_merging_lays_one_tree_on_another_and_changes_neither() -> None:
    base = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    over = {"b": {"d": {"e": 4, "g": 5}}, "f": [9], "h": {"i": 6}}
    assert merge(base, over) == {"a": 1, "b": {"c": 2, "d": {"e": 4, "g": 5}}, "f": [9], "h": {"i": 6}}
    assert base == {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    assert over == {"b": {"d": {"e": 4, "g": 5}}, "f": [9], "h": {"i": 6}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: [1", "is no YAML"),
        (b"- 1\n- 2\n", "expected 'key: value' lines, got list"),
        (b"hello", "expected 'key: value' lines, got str"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "config.yaml"),
        (b"a: \xff\xfe", "config.yaml"),
    ],
)
def test_a_file_that_holds_no_settings_says_so(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "config.yaml")
    assert message in str(error.value)


def test_a_missing_or_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); expected a YAML file of settings"):
        read_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_nearest_proposes_or_lists() -> None:
    assert nearest("resnet5", ["resnet50", "vit"]) == "Did you mean 'resnet50'?"
    assert nearest("xyz", ["b", "a"]) == "Valid are: a, b."


# --- files that a reader may look at while they are written ------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_written_atomically_has_the_rights_of_any_other(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "deep" / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "deep" / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_rows_come_back_and_a_last_line_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, [{"a": 1}, {"a": "line\u2028separator"}])
    with path.open("a") as file:
        file.write('{"a": 3, "b"')
    assert read_jsonl(path) == [{"a": 1}, {"a": "line\u2028separator"}]


def test_rows_appended_after_a_line_cut_off_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2, "b"')
    append_jsonl(path, [{"a": 3}])
    append_jsonl(path, [{"a": 4}])
    assert [row["a"] for row in read_jsonl(path)] == [1, 3, 4]
