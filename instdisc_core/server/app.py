"""The addresses that the page asks for."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from instdisc_core.data import Manifest
from instdisc_core.data.decoding import thumbnail
from instdisc_core.data.names import printable
from instdisc_core.data.reading import contents, digest
from instdisc_core.evaluation import layout
from instdisc_core.index import ImageIndex
from instdisc_core.page import FILES, Thumbnails, encoded, html_page, page_file
from instdisc_core.page.contents import json_for_html
from instdisc_core.page.thumbnails import SIDE
from instdisc_core.server.answers import MAX_BYTES, Answer, Answers, Computing
from instdisc_core.server.guard import Guard

LARGEST = 2**28  # bytes of a photo
BATCH = 500  # items of one answer, at most
SCRIPTS = ("data.js", *(name for name in FILES if name.endswith(".js")), "upload.js")
KINDS = {f".{kind}": f"image/{kind}" for kind in ("avif", "bmp", "gif", "jpeg", "png", "webp")}
KINDS |= dict.fromkeys((".jpg", ".jpe", ".jfif"), "image/jpeg")
KEPT = {"Cache-Control": "private, max-age=300"}
CHOOSER = (
    '<label class="button">Search by image<input id="file" type="file" accept="image/*"></label>'
)


class Originals:
    """The files of an index, as they were when it was built: only what was indexed is given.

    Args:
        folder: that the names are in.
        manifest: of the images.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    def data(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: it is not there, outside of the folder, or not what was indexed, such as a
                link to another file that has taken its place. A link that was indexed is given.
        """
        name = PurePosixPath(self.manifest.names[index])
        if name.is_absolute() or ".." in name.parts:
            raise ValueError("a path outside of the folder")
        data, _ = contents(self.folder / name, LARGEST)
        if digest(data) != self.manifest.digests[index]:
            raise ValueError("its content has changed")
        return data


def create_app(
    index: ImageIndex,
    photos: Path,
    cache: Path,
    positions: Callable[[], np.ndarray] | None = None,
    token: str | None = None,
) -> Starlette:
    """The page of an index as an ASGI application.

    Args:
        index: an ImageIndex of files.
        photos: the folder that the names in the index are in.
        cache: folder for the thumbnails, each of which is made when it is first asked for.
        positions: computes where the map shows each image, ``(n, 2)``; None is
            ``evaluation.layout``.
        token: what a request has to know, see ``Guard``; None answers requests to this machine's
            own name only.

    Example:
    ```python
    from pathlib import Path
    from instdisc_core.data import ImageFolder
    from instdisc_core.server import create_app

    folder = ImageFolder("photos", 32)
    app = create_app(ImageIndex(embeddings, folder), Path("photos"), Path("thumbnails"))
    ```
    """
    answers = Answers(index, positions or (lambda: layout(index.rows)))
    pages = _Pages(answers, Originals(photos, index.manifest), Thumbnails(cache, index.manifest))
    api = {
        "photos": lambda r, part: answers.photos(r.query_params.get("q", ""), part),
        "image/{place:int}": lambda r, part: answers.image(_place(r, len(index)), part),
        "name/{place:int}": lambda r, part: answers.name(_place(r, len(index))),
        "outliers": lambda r, part: answers.outliers(part),
        "duplicates": lambda r, part: answers.groups("duplicates", "Group", part),
        "clusters": lambda r, part: answers.groups("clusters", "Cluster", part),
        "duplicate/{place:int}": lambda r, part: answers.group("duplicates", _place(r), part),
        "cluster/{place:int}": lambda r, part: answers.group("clusters", _place(r), part),
        "map": lambda r, part: answers.map(),
    }
    routes = [
        Route("/", pages.home),
        Route("/page/{name}", pages.file),
        Route("/thumbnail/{place:int}", pages.thumbnail),
        Route("/original/{place:int}", pages.original),
        Route("/api/search", pages.search, methods=["POST"]),
        *(Route(f"/api/{path}", _answering(answer)) for path, answer in api.items()),
    ]
    handlers: dict[Any, Any] = {HTTPException: _failed, Computing: _computing}
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers=handlers,
    )


class _Pages:
    """What is not a list: HTML, scripts, pictures, and a picture to search by."""

    def __init__(self, answers: Answers, originals: Originals, thumbnails: Thumbnails) -> None:
        self.answers, self.originals, self.thumbnails = answers, originals, thumbnails
        self.title = printable(originals.folder.name)
        self.searches = answers.index.model is not None and answers.index.size is not None

    def home(self, request: Request) -> Response:
        scripts = SCRIPTS if self.searches else SCRIPTS[:-1]
        head = '<link rel="stylesheet" href="page/page.css">' + "".join(
            f'\n<script src="page/{name}" defer></script>' for name in scripts
        )
        return HTMLResponse(html_page(self.title, head, body=CHOOSER if self.searches else ""))

    def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (*SCRIPTS, "page.css"):
            raise HTTPException(404, "There is no such file.")
        kind = "text/css" if name == "page.css" else "text/javascript"
        return Response(self._data() if name == "data.js" else page_file(name), media_type=kind)

    def _data(self) -> str:
        answers = self.answers
        page = {"server": True, "title": self.title, "total": len(answers.index)}
        page |= {
            "version": answers.index.manifest.fingerprint,
            "classes": answers.classes,
            "tabs": answers.tabs,
            "maxBytes": MAX_BYTES,
        }
        return f"const PAGE = {json_for_html(page)};\n"

    def thumbnail(self, request: Request) -> Response:
        place = _place(request, len(self.answers.index))
        path = self.thumbnails.path(place)
        try:
            if not self.thumbnails.exists(place):
                self.thumbnails.make(place, lambda i, side: self._pixels(i))
            data = path.read_bytes()
        except OSError:  # a folder that cannot be written to
            data = encoded(self._pixels(place))
        return Response(data, media_type="image/webp", headers=KEPT)

    def _pixels(self, index: int) -> np.ndarray:
        try:
            return thumbnail(self.originals.data(index), SIDE)
        except ValueError as error:
            raise HTTPException(404, f"The photo cannot be read: {error}.") from error

    def original(self, request: Request) -> Response:
        place = _place(request, len(self.answers.index))
        try:
            data = self.originals.data(place)
        except ValueError as error:
            raise HTTPException(404, f"The photo cannot be read: {error}.") from error
        suffix = PurePosixPath(self.answers.names[place].lower()).suffix
        kind = KINDS.get(suffix, "application/octet-stream")  # which browsers save
        return Response(data, media_type=kind, headers=KEPT)

    async def search(self, request: Request) -> Response:
        data = bytearray()
        too_large = HTTPException(413, f"A picture may have at most {MAX_BYTES >> 20} MiB.")
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or int(length) > MAX_BYTES:
            raise too_large
        try:
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise too_large
        except ClientDisconnect:  # the page was closed: nobody waits for an answer
            return Response(status_code=400)
        try:
            return JSONResponse(await run_in_threadpool(self.answers.search, bytes(data)))
        except ValueError as error:
            raise HTTPException(400, f"That is no picture to search by: {error}.") from error


def _answering(answer: Callable[[Request, slice], Answer]) -> Callable[[Request], Response]:
    """An endpoint for a list, of which the query says a part."""

    def endpoint(request: Request) -> Response:
        try:
            start = int(request.query_params.get("from", "0"))
            stop = int(request.query_params.get("to", str(start + BATCH)))
        except ValueError as error:
            raise HTTPException(400, "from and to are numbers.") from error
        part = slice(max(0, start), min(max(0, stop), max(0, start) + BATCH))
        try:
            return JSONResponse(answer(request, part))
        except IndexError as error:
            raise HTTPException(404, "There is no such group.") from error

    return endpoint


def _place(request: Request, n: int | None = None) -> int:
    place: int = request.path_params["place"]
    if n is not None and place >= n:
        raise HTTPException(404, "There is no such photo.")
    return place


def _failed(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": printable(str(error.detail))}, error.status_code)


def _computing(request: Request, error: Computing) -> Response:
    return JSONResponse({"computing": str(error)}, 202)
