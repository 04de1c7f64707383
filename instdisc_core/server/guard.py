"""Who may ask the server: this machine's own pages, or those who know the token."""

import re
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST = 4096  # characters of a path
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::[0-9]+)?")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Rejects requests that other pages cause, and adds headers that keep the answers here.

    Without a token, the name of the host must be that of this machine, so that no other site can
    give its own name the address of this server (DNS rebinding).

    Args:
        app: what answers the requests that are let through.
        token: what a request has to know, in the address or in a cookie; None for a server that
            only this machine reaches.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None

        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer: ASGIApp = self._rejection(Request(scope)) or self.app
        try:
            await answer(scope, receive, send_with_headers)
        except Exception:
            if not begun:
                failed = JSONResponse(
                    {"error": "The server failed. The terminal in which it runs shows why."}, 500
                )
                await failed(scope, receive, send_with_headers)
            raise  # to whoever runs the server, whose own answer would lack the headers

    def _rejection(self, request: Request) -> Response | None:
        """The answer to a request that is not let through; None for one that is."""
        if len(request.url.path) > LONGEST:
            return PlainTextResponse("The address is too long.", 414)
        if _is_of_another_page(request.headers):
            return PlainTextResponse("Another page may not use this server.", 403)
        if self.token is None:
            if _host(request.headers.get("host", "")) in LOCAL:
                return None
            return PlainTextResponse("Open the address that 'instdisc serve' printed.", 403)
        cookie = f"instdisc-{(request.scope.get('server') or ('', 0))[1]}"
        if self._is_token(request.cookies.get(cookie, "")):
            return None
        if request.url.path == "/" and self._is_token(request.query_params.get("token", "")):
            welcome = RedirectResponse("./", 303)  # to an address without the token
            welcome.set_cookie(cookie, self.token, httponly=True, samesite="lax")
            return welcome
        said = "Open the address that 'instdisc serve' printed; it holds a token."
        return PlainTextResponse(said, 403)

    def _is_token(self, said: str) -> bool:
        return secrets.compare_digest(said.encode(), str(self.token).encode())


def _host(header: str) -> str:
    """The name in a Host header, without its port; ``""`` for what is none."""
    found = HOST.fullmatch(header.lower())
    return (found[1] or found[2]) if found else ""


def _is_of_another_page(headers: Headers) -> bool:
    """Whether a page of another origin causes this request; a link to this page is let through."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
    if site not in ("none", "same-origin") and mode != "navigate":
        return True
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:  # "http://["
        return True
