"""Servers on this machine that misbehave on purpose: drop connections, stall, ignore ranges."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `files`; counts the requests for content in `gets`, and the bytes it sent for them in `sent`.

    The first `drops` answers end half-way, each after at most `cut` bytes. With `stalls` that many answers never come.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = dict(files)
        self.drops = self.stalls = self.gets = self.sent = 0
        self.cut = 1 << 40
        self.ranges = True
        self.status = 0
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up here as a matter of course."""


class _Answer(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.gets += 1
            drop, stall = server.drops > 0, server.stalls > 0
            server.drops -= drop
            server.stalls -= stall
        if stall:
            server.released.wait(20)
            return
        body = self._head()
        if drop:
            body = body[: min(len(body) // 2, server.cut)]
        self.wfile.write(body)
        with server.lock:
            server.sent += len(body)
        if drop:
            self.wfile.flush()
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _head(self) -> bytes:
        body = self.server.files.get(self.path.lstrip("/"))
        if body is None or self.server.status:
            self.send_error(self.server.status or 404)
            return b""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start, stop = int(wanted[1]), int(wanted[2] or len(body) - 1) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            part = body[start:stop]
        else:
            self.send_response(200)
            part = body
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hash(body)}"')
        self.end_headers()
        return part


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[FileServer]:
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


class Proxy(socketserver.ThreadingTCPServer):
    """Stands before another server; cuts each of the first `drops` connections after `cut` bytes of answers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.behind = ("127.0.0.1", port)
        self.drops, self.cut, self.dropped = 0, 1 << 40, 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Relay(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as behind:
            up = threading.Thread(target=_copy, args=(self.request, behind, 1 << 62), daemon=True)
            up.start()
            with self.server.lock:
                drop = self.server.drops > 0
            if _copy(behind, self.request, self.server.cut if drop else 1 << 62) and drop:
                with self.server.lock:
                    self.server.drops -= 1
                    self.server.dropped += 1
            for end in (self.request, behind):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            up.join(5)


def _copy(source: socket.socket, target: socket.socket, limit: int) -> bool:
    """Whether the limit was reached."""
    with suppress(OSError):
        while limit and (data := source.recv(min(65536, limit))):
            target.sendall(data)
            limit -= len(data)
    if limit:
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
    return not limit


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    with Proxy(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
