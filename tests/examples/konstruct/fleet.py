"""The example's servers and services, started and ended by its tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import services

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "konstruct"
TOKENS = {"acme": "acme-token", "globex": "globex-token"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What HTTP gave back."""

    status: int
    body: Any
    headers: Any


@dataclass(slots=True)
class Fleet:
    """Servers of the example, and how to talk to its web process."""

    environment: dict[str, str]
    url: str = ""
    tokens: dict[str, str] | None = None

    def call(
        self,
        path: str,
        body: object = None,
        *,
        tenant: str | None = "acme",
        token: str | None = None,
        method: str | None = None,
    ) -> Answer:
        """One request as a tenant, with its own token by default."""
        known = self.tokens or TOKENS
        headers = {"Content-Type": "application/json"}
        if tenant is not None:
            headers["X-Tenant"] = tenant
        if token or tenant in known:
            headers["Authorization"] = f"Bearer {token or known[str(tenant)]}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return _answer(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error)

    def say(self, text: str, *, tenant: str = "acme", **fields: str) -> Answer:
        """Post a message of user U1 to the agent."""
        message = {
            "message_id": uuid.uuid4().hex,
            "thread_id": "T1",
            "agent_id": "concierge",
            "user_id": "U1",
            "text": text,
            **fields,
        }
        return self.call("/channels/test/messages", message, tenant=tenant)

    def told(self, text: str, *, tenant: str = "acme", **fields: str) -> str:
        """Post a message and wait for the agent's answer to it."""
        user = fields.get("user_id", "U1")
        before = len(self.window(tenant, user))
        accepted = self.say(text, tenant=tenant, **fields)
        assert accepted.status == 202, accepted
        answer: list[str] = []

        def answered() -> bool:
            window = self.window(tenant, user)
            answer[:] = [m["text"] for m in window[-1:] if m["role"] == "assistant"]
            return bool(answer) and (len(window) != before or "cleared" in answer[0])

        services.wait_until(answered, f"an answer to {text!r}", seconds=30)
        return answer[0]

    def window(self, tenant: str = "acme", user: str = "U1") -> list[dict[str, str]]:
        """The messages of a user, as the service shows them."""
        return self.call(f"/agents/concierge/users/{user}/messages", tenant=tenant).body["messages"]


def _answer(response: Any) -> Answer:
    content = response.read()
    is_json = "json" in (response.headers.get("Content-Type") or "")
    return Answer(response.status, json.loads(content) if is_json else content, response.headers)


@contextlib.contextmanager
def database(dsn: str) -> Iterator[dict[str, str]]:
    """Make a database and a role of our own and run the migrations."""
    import psycopg
    from sqlalchemy import make_url

    mark = uuid.uuid4().hex[:8]
    name, role = f"konstruct_{mark}", f"konstruct_app_{mark}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        owner = make_url(dsn).set(drivername="postgresql+psycopg", database=name)
        environment = {
            "MIGRATION_DATABASE_URL": owner.render_as_string(hide_password=False),
            "DATABASE_URL": owner.set(username=role, password=None).render_as_string(),
        }
        try:
            migrate(environment)
            yield environment
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE IF EXISTS {role}")


def process_environment(*environments: dict[str, str]) -> dict[str, str]:
    """What a service of the example runs with."""
    path = [str(EXAMPLE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    absolute = [str(Path(entry).resolve()) for entry in path if entry]
    merged = {**os.environ, "PYTHONPATH": os.pathsep.join(absolute), "PYTHONUNBUFFERED": "1"}
    for environment in environments:
        merged |= environment
    return merged


def migrate(environment: dict[str, str]) -> str:
    """Run the migrations; returns what they print."""
    done = subprocess.run(
        [sys.executable, "-m", "konstruct.migrate"],
        env=process_environment(environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(
    name: str, command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to ``folder/name.log``, ended with its children."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=EXAMPLE,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        services.stop(process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str, folder: Path, seconds: float = 60) -> None:
    """Poll; when it does not come, show what the services wrote."""
    try:
        services.wait_until(condition, what, seconds=seconds)
    except TimeoutError as error:
        logs = "\n".join(f"--- {p.name}\n{p.read_text()[-2500:]}" for p in folder.glob("*.log"))
        raise AssertionError(f"{error}\n{logs}") from error


def healthy(url: str) -> bool:
    """Whether the web process answers its probe."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def fleet(
    environment: dict[str, str], folder: Path, *, workers: int = 1, tokens: dict[str, str]
) -> Iterator[Fleet]:
    """A web process and workers, ready."""
    url_port = services.free_port()
    whole = {
        "KONSTRUCT_TOKENS": ",".join("=".join(pair) for pair in tokens.items()),
        "KONSTRUCT_EMBEDDINGS": "words",
        **environment,
    }
    env = process_environment(whole)
    made = Fleet(whole, f"http://127.0.0.1:{url_port}", tokens)
    web = [sys.executable, "-m", "uvicorn", "konstruct.app:app", "--port", str(url_port)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("web", web, env, folder))
        for number in range(workers):
            stack.enter_context(running(f"worker{number}", worker(number), env, folder))
        wait_for(lambda: healthy(made.url), "the web process", folder)
        for number in range(workers):
            log = folder / f"worker{number}.log"
            wait_for(lambda log=log: " ready." in log.read_text(), "a worker", folder)
        yield made


def worker(number: int) -> list[str]:
    """The command line of one worker."""
    command = [sys.executable, "-m", "celery", "-A", "konstruct.orchestrator", "worker"]
    return [*command, "-c", "1", "-l", "INFO", "-n", f"w{number}-{uuid.uuid4().hex[:6]}@%h"]
