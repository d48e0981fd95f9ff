"""Documented means executed: every command and every Python block of the README runs, on small data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

import pictures
from guides import executed, typed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.M | re.S)


def quick(text: str) -> str:
    """The same command with a budget for tests."""
    return text.replace("--minutes 60", "--minutes 0.05 --backbone vit_w32_d1_p8").replace("minutes=60", "minutes=0.05")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("tour")
    pictures.folder(at / "photos", 40, labelled=False)
    pictures.folder(at / "labelled", 48, classes=2)
    torch.save(timm.create_model("resnet18", num_classes=7).state_dict(), at / "ours.pt")
    return at


def test_readme_starts_with_the_two_make_commands_and_the_makefile_has_them() -> None:
    first = blocks("bash")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "test-all"} <= set(targets)


@pytest.mark.timeout(900)
def test_every_command_and_python_block_of_the_readme_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    commands = [line for block in blocks("bash")[1:] for line in block.splitlines() if line.strip()]
    assert len(commands) >= 6
    for line in commands:
        typed(quick(line), capsys)
    for code in blocks("python"):
        assert executed([quick(code)], capsys)[-1].split()[0] in ("keep", "replace", "undecided")
    assert (place / "results" / "report.html").is_file()
    assert (place / "features.parquet").is_file()
    assert '"/9j/' not in (place / "results-ours" / "report.html").read_text(encoding="utf-8")
    assert '"/9j/' in (place / "results" / "report.html").read_text(encoding="utf-8")


def test_table_of_verbs_is_the_programs_own() -> None:
    from selfsight.cli import app

    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert verbs == set(re.findall(r"^\| `selfsight (\w+)", README, re.M))


def test_table_of_encoders_names_every_family() -> None:
    from selfsight.encoders import FAMILIES

    table = README.split("## Encoders")[1].split("##")[0]
    assert {family for family in FAMILIES if f"`{family}" in table} == set(FAMILIES)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
