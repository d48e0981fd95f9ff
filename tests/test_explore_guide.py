"""docs/explore.md: its commands and its Python run; whoever opens the page looks at a picture and then presses Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pictures
from encoded_pictures import encoded, scene
from selfsight import api
from selfsight.cli import main

GUIDE = (Path(__file__).parent.parent / "docs" / "explore.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


class Visitor(webbrowser.BaseBrowser):
    """The browser that `--open` opens: looks at a picture with every encoder, then stops the program as Ctrl-C would."""

    def __init__(self) -> None:
        super().__init__("visitor")
        self.seen: list[list[dict[str, Any]]] = []
        self.thread = threading.Thread()

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.thread = threading.Thread(target=self._visit, args=(url,))
        self.thread.start()
        return True

    def _visit(self, url: str) -> None:
        try:
            encoders = self._ask(f"{url}api/about")["encoders"]
            picture = self._ask(f"{url}api/pictures", encoded(scene()))["picture"]
            self.seen.append([self._ask(f"{url}api/pictures/{picture}/{which}/look") for which in range(len(encoders))])
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def _ask(self, url: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(url, data, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    monkeypatch.setattr(webbrowser, "_browsers", {})
    found = Visitor()
    webbrowser.register("visitor", None, found, preferred=True)
    yield found
    found.thread.join(60)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pictures.folder(tmp_path / "photos", 5, labelled=False)
    settings = {"batch_size": 4, "workers": 0}
    api.train(tmp_path / "photos", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=settings)
    return tmp_path


def test_its_commands_and_its_python_run(
    place: Path, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "selfsight"
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--open"])
        visitor.thread.join(60)
        assert not stopped.value.code, command
        assert "(Ctrl-C ends it)" in capsys.readouterr().out
    for code in blocks("python"):
        exec(code, {})
        visitor.thread.join(60)
    shapes = [[(look["attention"], len(look["images"])) for look in looks] for looks in visitor.seen]
    cnn, vit = (False, 5), (True, 5)
    assert shapes == [[cnn], [cnn, vit], [vit], [(False, 0)], [cnn, vit]]
    assert visitor.seen[2][0]["grid"] == [56, 84]
    assert sorted(path.name for path in place.iterdir()) == ["photos", "runs"]
