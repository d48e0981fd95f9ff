"""The page over HTTP: its files, and what it asks for as JSON."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from selfsight import __version__
from selfsight.attention.objects import FINDERS
from selfsight.data.decode import UndecodableError
from selfsight.explorer.guard import App, Guard
from selfsight.explorer.viewer import GoneError, Viewer
from selfsight.runs import readable

P = ParamSpec("P")
T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""Of an upload."""
_PAGE = 60
"""Images of the set in one answer, at most."""
_FILES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
    "picture.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def application(viewer: Viewer, notes: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> App:
    """The whole of it behind its `Guard`; `notes` are said at the foot of the page, `names` are those of this machine."""
    return Guard(Pages(viewer, notes).app, names)


class Pages:
    """Encoders work in one thread and the album is read in another, one thing at a time, while requests come and go."""

    def __init__(self, viewer: Viewer, notes: tuple[str, ...]) -> None:
        self.viewer, self.notes = viewer, notes
        self._looking, self._reading = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("looking", "reading"))
        routes = [
            Route("/", self.file),
            Route("/{name}", self.file),
            Route("/api/about", self.about),
            Route("/api/data", self.data),
            Route("/api/data/{sample}", self.choose, methods=["POST"]),
            Route("/api/data/{sample}/small", self.small),
            Route("/api/pictures", self.upload, methods=["POST"]),
            Route("/api/pictures/{picture}/shown", self.shown),
            Route("/api/pictures/{picture}/{encoder}/look", self.look),
            Route("/api/pictures/{picture}/{encoder}/place", self.place),
            Route("/api/pictures/{picture}/{encoder}/objects", self.objects),
        ]
        handlers = {GoneError: _gone, UndecodableError: _undecodable, HTTPException: _refused}
        self.app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._living)

    async def file(self, request: Request) -> Response:
        name = request.path_params.get("name", "page.html")
        if name not in _FILES:
            raise HTTPException(404, "there is no such page")
        return Response(_asset(name), media_type=_FILES[name])

    async def about(self, request: Request) -> Response:
        album = self.viewer.album
        data = None if album is None else {"name": album.source.location, "images": len(album)}
        return JSONResponse(
            {
                "version": __version__,
                "encoders": [onlooker.about() for onlooker in self.viewer.onlookers],
                "data": data,
                "notes": self.notes,
                "most_bytes": MOST_BYTES,
            }
        )

    async def data(self, request: Request) -> Response:
        """Keys of some images of the set, from number `start` on."""
        album = self.viewer.images
        start = _number(request.query_params.get("start", "0"), len(album))
        numbers = range(start, min(len(album), start + _PAGE))
        images = [{"sample": sample, "key": album.source.keys[sample]} for sample in numbers]
        return JSONResponse({"images": images, "total": len(album)})

    async def small(self, request: Request) -> Response:
        sample = _number(request.path_params["sample"], len(self.viewer.images))
        return Response(await self._in(self._reading, self.viewer.images.small, sample), media_type="image/jpeg")

    async def choose(self, request: Request) -> Response:
        sample = _number(request.path_params["sample"], len(self.viewer.images))
        data = await self._in(self._reading, self.viewer.images.data, sample)
        return JSONResponse((await self._in(self._looking, self.viewer.open, data, sample)).about())

    async def upload(self, request: Request) -> Response:
        """The bytes of a picture and nothing else: a name is neither asked for nor heard, and nothing is written."""
        data = await _body(request)
        return JSONResponse((await self._in(self._looking, self.viewer.open, data)).about())

    async def shown(self, request: Request) -> Response:
        return Response(self.viewer.held(request.path_params["picture"]).shown, media_type="image/jpeg")

    async def look(self, request: Request) -> Response:
        return JSONResponse(await self._in(self._looking, self.viewer.look, *self._which(request)))

    async def place(self, request: Request) -> Response:
        at = [_share(request, name) for name in ("x", "y")]
        return JSONResponse(await self._in(self._looking, self.viewer.place, *self._which(request), *at))

    async def objects(self, request: Request) -> Response:
        finder = request.query_params.get("finder", "")
        if finder not in FINDERS:
            raise HTTPException(400, f"finder: expected one of {', '.join(FINDERS)}")
        return JSONResponse(await self._in(self._looking, self.viewer.objects, *self._which(request), finder))

    def _which(self, request: Request) -> tuple[str, int]:
        return request.path_params["picture"], _number(request.path_params["encoder"], len(self.viewer.onlookers))

    async def _in(self, executor: Executor, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, lambda: work(*given, **named))

    @asynccontextmanager
    async def _living(self, app: Any) -> AsyncIterator[None]:
        yield
        for executor in (self._looking, self._reading):
            executor.shutdown(wait=True, cancel_futures=True)


async def _body(request: Request) -> bytes:
    """All of an upload, as long as it is not too large; who says so beforehand is refused at once."""
    told = request.headers.get("content-length", "")
    data = bytearray()
    too_large = told.isdecimal() and (len(told) > 18 or int(told) > MOST_BYTES)
    if not too_large:
        async for chunk in request.stream():
            data += chunk
            too_large = len(data) > MOST_BYTES
            if too_large:
                break
    if too_large:
        raise HTTPException(413, f"is larger than {readable(MOST_BYTES)}, the most that is taken", {"connection": "close"})
    return bytes(data)


def _asset(name: str) -> str:
    return (resources.files("selfsight.explorer") / name).read_text(encoding="utf-8")


def _number(text: str, below: int) -> int:
    """A whole number from 0 that is one of `below`; else it is as if there were no such page."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) < below):
        raise HTTPException(404, f"expected a whole number from 0 to {below - 1}")
    return int(text)


def _share(request: Request, name: str) -> float:
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise HTTPException(400, f"{name}: expected a number from 0 to 1")
    return value


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404)


async def _undecodable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"is no picture that can be read: {error}"}, 415)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
