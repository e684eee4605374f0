"""A small web server on the loopback interface: GET only, for pages that come from itself."""

from __future__ import annotations

import errno
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import SplitResult, urlsplit

from align_cache._version import __version__
from align_cache.errors import UsageError
from align_cache.viewing.query import Query, Refusal
from align_cache.viewing.routes import Answer, answer, as_json
from align_cache.viewing.viewer import Viewer

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost"}
"""What this machine may be called in an address. Any other name is one that a stranger's DNS leads here."""

_HEADERS = {
    # Whatever slips into the page as markup can neither run nor load nor send anything.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """A page bound to a port of 127.0.0.1; a thread a connection.

    Parameters
    ----------
    viewer : Viewer
        What is asked.
    port : int
        0 takes a free one.

    Raises
    ------
    UsageError
        If the port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, viewer: Viewer, port: int) -> None:
        self.viewer = viewer
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            reason = "is taken" if taken else f"cannot be used: {error}"
            raise UsageError(f"port {port} {reason}", hint="--port 0 takes a free one") from None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong on a connection; that the page has closed it or fell silent is no failure."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            _say(f"error: {type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"align-cache/{__version__}"
    sys_version = ""
    timeout = 60  # seconds; a connection that says nothing gives its thread back

    def do_GET(self) -> None:
        """Answer, whatever happens, with a status and a body."""
        self._send(self._answer())

    def _answer(self) -> Answer:
        try:
            self._guard()
            address = _split(self.path)
            return answer(cast(PageServer, self.server).viewer, address.path, Query(address.query))
        except Refusal as refusal:
            return as_json({"error": refusal.message}, refusal.status)
        except Exception as error:
            _say(f"error: {self.path}: {type(error).__name__}: {error}")
            fault = {"error": f"unexpected {type(error).__name__}: this is a fault of align-cache"}
            return as_json(fault, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _guard(self) -> None:
        """Refuse what another site's page asks in the name of whoever looks at it."""
        if _split(f"//{self.headers.get('Host', '')}").hostname not in _NAMES:
            raise Refusal(HTTPStatus.FORBIDDEN, "this page answers to 127.0.0.1 and localhost alone")
        if self.path != "/" and self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refusal(HTTPStatus.FORBIDDEN, "asked for by another site")

    def _send(self, found: Answer) -> None:
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.content)))
        self.send_header("Cache-Control", f"private, max-age={found.keep_s}" if found.keep_s else "no-store")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(found.content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing of what is answered as it should be."""


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"no address: {error}") from None


def _say(line: str) -> None:
    from rich.text import Text

    from align_cache.terminal.console import stderr

    stderr().print(Text(line), soft_wrap=True)
