"""The server: a place on this machine, an address to print, and an end that leaves nothing behind."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from selfsight.errors import InputError
from selfsight.explorer.guard import App

_PATIENCE = 3
"""Seconds that answers under way have when the server is stopped."""
_STOPS = (signal.SIGINT, signal.SIGTERM)


def bound(host: str, port: int) -> socket.socket:
    """A socket at a place that is free; `InputError` where there is none."""
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: expected a number from 0, for any that is free, to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: is no address of this machine; 127.0.0.1 is one that others cannot reach") from None
    family, kind, protocol, _, address = found[0]
    # A socket that does not say that it is TCP would be left with Nagle's algorithm: 40 ms more for each small picture.
    place = socket.socket(family, kind, protocol)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind(address)
    except OSError as error:
        place.close()
        advice = "give another --port, or 0 for any that is free"
        raise InputError(f"--host {host} --port {port}: cannot be used ({error.strerror}); {advice}") from None
    return place


def address(host: str, place: socket.socket) -> str:
    """What to type into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{place.getsockname()[1]}/"


def is_private(place: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(place.getsockname()[0]).is_loopback


def serve(app: App, place: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM, which are how a server is meant to end."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=_PATIENCE
    )
    with _signals_end_it():
        uvicorn.Server(config).run(sockets=[place])


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """uvicorn raises again what it was stopped by, for whoever handled it before: here nobody has to know any more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
