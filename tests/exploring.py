"""The local page in a thread of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from selfsight.api import Silent
from selfsight.explorer import serving as places
from selfsight.explorer.app import application
from selfsight.explorer.exploring import opened


class Server:
    """Requests to 127.0.0.1, each on a connection of its own."""

    def __init__(self, port: int, data: Path | None) -> None:
        self.port, self.data = port, data

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers by their names in small letters, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def raw(self, text: str) -> tuple[int, bytes]:
        """(status, all of the answer) to a request as it is written."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(text.encode())
            answer = connection.recv(65536)
        return int(answer.split()[1]), answer

    def get(self, path: str) -> Any:
        return self._json("GET", path, None)

    def post(self, path: str, body: bytes = b"") -> Any:
        return self._json("POST", path, body)

    def _json(self, method: str, path: str, body: bytes | None) -> Any:
        status, _, answer = self.request(method, path, body)
        assert status == 200, (path, status, answer)
        return json.loads(answer)


@contextmanager
def serving(page: tuple[Any, Path | None]) -> Iterator[Server]:
    """What `explored` gives, served until the end."""
    app, data = page
    place = places.bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Server(place.getsockname()[1], data)
    finally:
        server.should_exit = True
        thread.join(30)
        place.close()


def explored(encoder: str | None, data: Path | None, with_: str | None = None) -> tuple[Any, Path | None]:
    """The application as `selfsight explore` makes it."""
    viewer, notes = opened(encoder, data, with_, None, 2000, "cpu", 0, None, Silent())
    return application(viewer, notes), data
