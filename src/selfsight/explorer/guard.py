"""What keeps the page to those who opened it: who may ask, and what the browser may do with the answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")


class Guard:
    """Around an application: refuses requests under a name that is not ours, and those that another site's page sends.

    A site whose name is made to point at this machine (DNS rebinding) sends its own name as Host; only `localhost`, the `names`
    and plain addresses, which no one can point elsewhere, are let through. No answer allows another origin to read it.
    """

    def __init__(self, app: App, names: tuple[str, ...] = ()) -> None:
        self.app = app
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, sending)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await sending({"type": "http.response.start", "status": 403, "headers": headers})
        await sending({"type": "http.response.body", "body": refusal.encode()})

    def _refusal(self, scope: Message) -> str | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self._ours(hosts[0]):
            return "refused: the page is asked for under a name that is not its own; use the address that selfsight printed"
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if scope["method"] not in _SAFE and any(_netloc(origin) != hosts[0].lower() for origin in origins):
            return "refused: the request comes from the page of another site"
        return None

    def _ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and (name in self.names or _is_address(name))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
