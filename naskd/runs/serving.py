"""The page of a run, or of a folder of runs, from a small server on this machine: it follows what goes on.

Nothing is served but what is made here: a page, its data and a word on the state, each under a name of its own. No
part of an address is ever a path. A browser that was led here under a foreign name (DNS rebinding) is refused; beyond
this machine, so is whoever does not have the token.
"""

import ipaddress
import json
import secrets
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from naskd.report import html, runs_html
from naskd.runs.directory import STUDY_FILE
from naskd.runs.following import FolderFollower, Follower, RunFollower, folder_state, run_state
from naskd.spec.errors import InputError, NaskdError, one_line

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8642

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SECONDS = 30.0
"""So long a browser may take to say what it wants."""


class Pages:
    """What there is to serve, by address.

    Args:
        path: Of a run directory, or of a folder of them.

    Raises:
        InputError: It is neither.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"there is no folder {path}; naskd search makes runs/<name>")
        self._path = path
        self.is_run = (path / STUDY_FILE).is_file()
        self._folder = None if self.is_run else FolderFollower(path)
        self._runs: dict[Path, RunFollower] = {}

    def find(self, address: str) -> Callable[[], tuple[str, str]] | None:
        """What is under an address, percent signs and all: makes its kind and its text. None where nothing is."""
        *folders, leaf = address.removeprefix("/").split("/")
        if leaf not in _LEAVES or not address.startswith("/"):
            return None
        if not folders:
            run = self._path if self.is_run else None
            return lambda: self._answer(leaf, run)
        if self.is_run or len(folders) != 2 or folders[0] != "run":
            return None
        found = self._named(unquote(folders[1]))
        return None if found is None else lambda: self._answer(leaf, found)

    def _named(self, name: str) -> Path | None:
        """The run of that name, among those that are there: a name is compared, and never opened."""
        with suppress(OSError):
            return next(
                (
                    each
                    for each in self._path.iterdir()
                    if each.name == name and (each / STUDY_FILE).is_file()
                ),
                None,
            )
        return None

    def _answer(self, leaf: str, run: Path | None) -> tuple[str, str]:
        """The kind of content and the content.

        Args:
            leaf: Of :data:`_LEAVES`.
            run: None for the folder.
        """
        if run is None:
            assert self._folder is not None
            follower: Follower = self._folder
        else:
            follower = self._runs.setdefault(run, RunFollower(run))
        reading = follower.latest()
        if leaf == "state.json":
            state = folder_state(reading.data["runs"]) if run is None else run_state(run)
            return _JSON, json.dumps({**state, "stamp": reading.stamp})
        data = {**reading.data, "up": "../../" if run is not None and not self.is_run else None}
        if leaf == "data.json":
            return _JSON, json.dumps(data)
        scripts = runs_html.SCRIPTS if run is None else html.SCRIPTS
        return _HTML, html.assembled(str(data["study"]), data, scripts, live=True)


_LEAVES = ("", "data.json", "state.json")
_JSON, _HTML, _TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"


class Server(ThreadingHTTPServer):
    """Serves pages until it is closed.

    Args:
        pages: What there is.
        host: Name or address to listen on. Beyond this machine whoever asks must have the token.
        port: 0 for any that is free.

    Raises:
        InputError: It cannot listen there.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, pages: Pages, host: str = LOOPBACK, port: int = DEFAULT_PORT) -> None:
        self.pages = pages
        self.host = host
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot listen on {host}, port {port} ({why}); give another --port, or --port 0 for any that is free"
            ) from None
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}
        if self.token:
            self._names.add(socket.getfqdn().lower())

    def server_bind(self) -> None:
        """As the server below it does, without a look-up of the name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """What to open in a browser."""
        anywhere = self.host in ("0.0.0.0", "::", "")
        name = socket.gethostname() if anywhere else self.host
        shown = f"[{name}]" if ":" in name else name
        return f"http://{shown}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def is_known(self, host: str) -> bool:
        """Whether a request means this server: by an address, which no foreign name can be, or by one of its names."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return bool(self.token) or address.is_loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error; anything else is a mistake of naskd, and said."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    server_version = "naskd"
    sys_version = ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        """A page, its data or its state."""
        if not self.server.is_known(self.headers.get("Host", "")):
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST,
                _TEXT,
                "This server does not go by that name: open it by its address.\n",
            )
            return
        try:
            asked = urlsplit(self.path)
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, _TEXT, "This is no address.\n")
            return
        if self.server.token and not self._has_token(asked.query):
            self._send(
                HTTPStatus.UNAUTHORIZED,
                _TEXT,
                "This page wants its token: open the address that naskd serve has printed.\n",
            )
            return
        if self.server.token and asked.query:
            # From here on the cookie has it, and no address that is copied or kept.
            cookie = f"{self._cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
            self._send(
                HTTPStatus.SEE_OTHER, _TEXT, "", {"Location": _local(asked.path), "Set-Cookie": cookie}
            )
            return
        make = self.server.pages.find(asked.path)
        if make is not None:
            self._answer(make)
        elif self.server.pages.find(f"{asked.path}/") is not None:
            self._send(HTTPStatus.SEE_OTHER, _TEXT, "", {"Location": _local(f"{asked.path}/")})
        elif asked.path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, _TEXT, "")
        else:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, "There is nothing under this address.\n")

    do_HEAD = do_GET

    def _answer(self, make: Callable[[], tuple[str, str]]) -> None:
        try:
            kind, text = make()
        except NaskdError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{one_line(error)}\n")
        except Exception:
            traceback.print_exc()
            self._send(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                _TEXT,
                "This failed: the terminal of naskd serve says why.\n",
            )
        else:
            self._send(HTTPStatus.OK, kind, text)

    @property
    def _cookie(self) -> str:
        """Browsers keep one set of cookies for all ports of a machine."""
        return f"naskd-token-{self.server.server_port}"

    def _has_token(self, query: str) -> bool:
        try:
            kept = SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie)
        except CookieError:
            kept = None
        shown = [*parse_qs(query).get("token", ()), *([kept.value] if kept else [])]
        wanted = self.server.token.encode()
        # Each is compared in the same time, whatever it has in common with the right one.
        return any(secrets.compare_digest(each.encode(errors="replace"), wanted) for each in shown)

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**_HEADERS, **(headers or {}), "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every two seconds, and addresses may hold the token."""


def _local(path: str) -> str:
    """An address of this server alone: two slashes would begin another's name."""
    return "/" + quote(unquote(path).lstrip("/\\"), safe="/")
