"""Listens at an address until it is interrupted."""

import errno
import socket
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from instdisc_core.server.guard import LOCAL
from instdisc_core.validation import require


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        listener: the socket.
        url: of the page, without a token.
    """

    listener: socket.socket
    url: str

    def with_token(self, token: str | None) -> str:
        """The URL to open first."""
        return self.url if token is None else f"{self.url}?token={quote(token)}"


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    return host in LOCAL


def bound(host: str, port: int) -> Address:
    """Listen at an address; port 0 is any that is free.

    Raises:
        ValueError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        in_use = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "which is in use" if in_use else f"where this machine cannot listen ({error})"
        raise ValueError(
            f"Received: port {port} of {host}, {why}. Expected a free one. "
            "Choose another one with --port; 0 takes any."
        ) from error
    name = socket.gethostname() if host in ("", "0.0.0.0", "::") else host  # "" is every address
    name = f"[{name}]" if ":" in name else name
    return Address(listener, f"http://{name}:{listener.getsockname()[1]}/")


def run(app: Callable[..., Any], listener: socket.socket) -> None:
    """Answer requests until the process is interrupted; then return within some seconds."""
    import uvicorn

    require(listener.fileno() >= 0, "a socket that is closed", "one that listens")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # it has answered what it was asked before
    finally:
        listener.close()
