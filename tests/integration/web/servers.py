"""Real web servers for the tests: how each is started, and a raw HTTP client to talk to them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import tenantry
from tests import services

ROOT = Path(__file__).parents[3]
ASGI = "tests.integration.web.asgi_service:app"
WSGI = "tests.integration.web.wsgi_service:app"

UVICORN = "-m uvicorn {asgi} --host 127.0.0.1 --port {port} --no-access-log --log-level warning"
GUNICORN = (
    "-m gunicorn {wsgi} --bind 127.0.0.1:{port} --keep-alive 20 --log-level warning --graceful-timeout 1"
)
COMMANDS = {
    "uvicorn-h11-asyncio": f"{UVICORN} --http h11 --loop asyncio",
    "uvicorn-h11-uvloop": f"{UVICORN} --http h11 --loop uvloop",
    "uvicorn-httptools-asyncio": f"{UVICORN} --http httptools --loop asyncio",
    "uvicorn-httptools-uvloop": f"{UVICORN} --http httptools --loop uvloop",
    "hypercorn-asyncio": "-m hypercorn {asgi} --bind 127.0.0.1:{port} --worker-class asyncio --log-level warning",
    "hypercorn-uvloop": "-m hypercorn {asgi} --bind 127.0.0.1:{port} --worker-class uvloop --log-level warning",
    "granian-asgi": "-m granian {asgi} --interface asgi --host 127.0.0.1 --port {port} --no-access-log --log-level error",
    "gunicorn-sync": f"{GUNICORN} --worker-class sync",
    "gunicorn-gthread": f"{GUNICORN} --worker-class gthread --threads 40",
    "gunicorn-gevent": f"{GUNICORN} --worker-class gevent",
    "waitress": "-m waitress --listen=127.0.0.1:{port} --threads=20 {wsgi}",
    "granian-wsgi": "-m granian {wsgi} --interface wsgi --host 127.0.0.1 --port {port} --no-access-log --log-level error",
    "wsgiref": "-m tests.integration.web.small_servers wsgiref {port}",
    "gevent-pywsgi": "-m tests.integration.web.small_servers gevent {port}",
}
#: How many requests each can have inside at once.
ROOM = {
    "gunicorn-sync": 1,
    "wsgiref": 1,
    "gunicorn-gthread": 40,
    "waitress": 20,
    "granian-wsgi": 1,
}


@dataclass(frozen=True)
class WebServer:
    """A server that runs one of the two services."""

    name: str
    port: int

    @property
    def room(self) -> int:
        return ROOM.get(self.name, 200)


@contextlib.contextmanager
def running(name: str) -> Iterator[WebServer]:
    """Start a server, wait until it answers, and stop it."""
    port = services.free_port()
    command = COMMANDS[name].format(port=port, asgi=ASGI, wsgi=WSGI).split()
    source = str(Path(tenantry.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), source])}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            services.wait_until(lambda: process.poll() is not None or _answers(port), f"{name} to answer")
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{name} did not start:\n{log.read().decode(errors='replace')}")
            services.used.append(name)
            yield WebServer(name, port)
        finally:
            services.stop(process)


def _answers(port: int) -> bool:
    try:
        with Connection(port) as connection:
            return connection.ask("GET", "/open").status == 200
    except OSError:
        return False


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection, spoken to in bytes: nothing between the test and the server.

    Where the server closes it after an answer, as some do each time, ``ask`` opens the next one.
    """

    def __init__(self, port: int, *, host: str = "example.com") -> None:
        self._port = port
        self._host = host
        self._open()

    def _open(self) -> None:
        self.ended = False
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send_all(self, requests: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Send several ``GET`` requests in one piece."""
        raw = (self._head("GET", path, headers) for path, headers in requests)
        self._socket.sendall(b"".join(raw))

    def send(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        if body or method == "POST":
            headers = (*headers, f"Content-Length: {len(body)}")
        self._socket.sendall(self._head(method, path, headers) + body)

    def _head(self, method: str, path: str, headers: Iterable[str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def receive(self, *, head: bool = False) -> Reply:
        first = self._file.readline()
        if not first:
            raise ConnectionResetError("the server has closed the connection")
        version, status = first.split()[:2]
        headers: dict[str, str] = {}
        while (line := self._file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        reply = Reply(int(status), headers, b"" if head else self._body(headers))
        self.ended = version == b"HTTP/1.0" or "close" in headers.get("connection", "").lower()
        return reply

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._file.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return self._file.read()
        parts = []
        while size := int(self._file.readline(), 16):
            parts.append(self._file.read(size))
            self._file.readline()
        self._file.readline()
        return b"".join(parts)

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Reply:
        if self.ended:
            self.close()
            self._open()
        self.send(method, path, *headers, body=body)
        return self.receive(head=method == "HEAD")

    def read_until(self, text: bytes) -> bytes:
        """Read what comes of a stream until ``text`` was in it."""
        seen = b""
        while text not in seen:
            line = self._file.readline()
            if not line:
                raise ConnectionResetError("the stream has ended")
            seen += line
        return seen
