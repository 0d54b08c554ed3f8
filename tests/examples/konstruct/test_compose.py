"""docker-compose.yml without Docker: its form, what it refers to, and its commands, run as they are."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml

from tenantry.integrations.redis import service_acl_rules
from tests import services
from tests.examples.konstruct.fleet import EXAMPLE, ROOT, process_environment, running, wait_for

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "web", "worker", "beat")
KEYS = {
    "image", "build", "command", "environment", "volumes", "ports", "depends_on", "healthcheck",
    "restart", "init",
}  # fmt: skip
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")


def resolved(value: str) -> str:
    """What compose makes of a text when no variable is set."""
    return VARIABLE.sub(lambda found: found[2], value).replace("$$", "$")


def test_file_has_the_form_that_compose_reads():
    """Known keys, the right types, nothing that compose would reject."""
    assert set(COMPOSE) == {"name", "x-service", "services", "volumes"}
    assert set(SERVICES) == {"redis", "rabbitmq", "postgres", *OURS}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name
        assert isinstance(service["image"], str)
        assert all(isinstance(word, str) for word in service.get("command", []))
        assert all(isinstance(value, str) for value in service["environment"].values()), name
        assert service["restart"] in ("no", "unless-stopped")
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).is_dir(), volume


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_service_that_stays_up_has_a_health_check(name: str):
    """With times in the form that compose reads."""
    check = SERVICES[name]["healthcheck"]
    assert isinstance(check["test"], str)
    assert check["test"]
    for key in ("interval", "timeout", "start_period"):
        assert re.fullmatch(r"\d+s", check.get(key, "1s"))
    assert isinstance(check["retries"], int)


def test_services_wait_for_what_they_need():
    """Health where there is a check, success where the service ends; no circle."""
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = needed == "migrate"
            expected = "service_completed_successfully" if ends else "service_healthy"
            assert how == {"condition": expected}, (name, needed)
            assert "healthcheck" in SERVICES[needed] or ends
    assert set(SERVICES["web"]["depends_on"]) == {"redis", "rabbitmq", "migrate"}
    assert set(SERVICES["migrate"]["depends_on"]) == {"postgres"}


def test_every_variable_has_a_default_and_every_port_is_local():
    """It starts on a fresh machine, and nobody else reaches it."""
    text = (ROOT / "docker-compose.yml").read_text()
    for name in re.findall(r"(?<!\$)\$\{?(\w+)", text):
        assert re.search(rf"(?<!\$)\$\{{{name}:-[^}}]+\}}", text), name
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8000:8000"]
    assert SERVICES["web"]["environment"]["UVICORN_PORT"] == "8000"


def test_hosts_are_services_and_passwords_agree():
    """What one service is told another one expects."""
    mail = SERVICES["web"]["environment"]
    for name in ("REDIS_URL", "OPERATOR_REDIS_URL", "BROKER_URL", "DATABASE_URL"):
        host = re.search(r"@(\w+):(\d+)/", resolved(mail[name]))
        assert host, name
        assert host[1] in SERVICES
    servers = {name: SERVICES[name]["environment"] for name in ("redis", "rabbitmq", "postgres")}
    assert resolved(servers["redis"]["REDIS_PASSWORD"]) in resolved(mail["REDIS_URL"])
    assert resolved(servers["redis"]["OPERATOR_PASSWORD"]) in resolved(mail["OPERATOR_REDIS_URL"])
    rabbit = servers["rabbitmq"]
    user = f"//{rabbit['RABBITMQ_DEFAULT_USER']}:{resolved(rabbit['RABBITMQ_DEFAULT_PASS'])}@"
    assert user in resolved(mail["BROKER_URL"])
    owner = SERVICES["migrate"]["environment"]["MIGRATION_DATABASE_URL"]
    assert f"postgres:{resolved(servers['postgres']['POSTGRES_PASSWORD'])}@" in resolved(owner)
    assert resolved(owner).endswith(f"/{servers['postgres']['POSTGRES_DB']}")
    for name in OURS:
        shared = {k: v for k, v in SERVICES[name]["environment"].items() if k in mail}
        assert shared.items() <= mail.items(), name


def test_environment_is_what_the_settings_read():
    """No misspelt variable."""
    source = "".join(path.read_text() for path in (EXAMPLE / "konstruct").glob("*.py"))
    for name in OURS:
        for variable in SERVICES[name]["environment"]:
            assert f'"{variable}"' in source or variable.startswith("UVICORN_"), variable


def test_dockerfile_copies_what_is_there_and_installs_what_is_declared():
    """Paths, extras and groups; and the ignore file lets all of it through."""
    import tomllib

    build = SERVICES["web"]["build"]
    dockerfile = (ROOT / build["context"] / build["dockerfile"]).read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources: list[str] = []
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        sources += line.split()[:-1]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = re.search(r'"\.\[([\w,]+)\]"', dockerfile)
    group = re.search(r"--group (\w+)", dockerfile)
    assert extras
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
    assert group
    assert group[1] in project["dependency-groups"]


def test_redis_rules_are_tenantrys():
    """The file is what service_acl_rules() returns."""
    rules = (EXAMPLE / "deploy" / "service_acl_rules.txt").read_text().split()
    assert rules == list(service_acl_rules())


# --- the commands, run as they are ---------------------------------------------------------------


class Stage:
    """The compose file's services on this machine: same commands, other addresses."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.folder = folder
        self.addresses = addresses
        self.tools = folder / "bin"
        self.tools.mkdir()

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment, with compose's addresses replaced by ours."""
        declared = {k: resolved(v) for k, v in SERVICES[name]["environment"].items()}
        for variable, value in declared.items():
            for theirs, ours in self.addresses.items():
                value = value.replace(theirs, ours)
            declared[variable] = value
        path = [str(self.tools), str(Path(sys.executable).parent), os.environ["PATH"]]
        whole = {**declared, "PATH": os.pathsep.join(path), "KONSTRUCT_EMBEDDINGS": "words"}
        return process_environment({**whole, **self.own(name)})

    def own(self, name: str) -> dict[str, str]:
        """Ports that are free here."""
        ports = {"redis": "REDIS_PORT", "web": "UVICORN_PORT"}
        return {ports[name]: self.addresses[f"port of {name}"]} if name in ports else {}

    def command(self, name: str) -> list[str]:
        """A service's command; a path in a mounted folder is that folder's here."""
        words = [word.replace("/tmp/", f"{self.folder}/") for word in SERVICES[name]["command"]]
        for volume in SERVICES[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            words = [word.replace(target, str((ROOT / source).resolve())) for word in words]
        return words

    def run(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """Start it."""
        return running(name, self.command(name), self.environment(name), self.folder)

    def healthy(self, name: str) -> bool:
        """Whether its health check says so."""
        test = resolved(SERVICES[name]["healthcheck"]["test"]).replace("/tmp", str(self.folder))
        done = subprocess.run(
            ["sh", "-c", test], env=self.environment(name), cwd=EXAMPLE, capture_output=True
        )
        return done.returncode == 0


@pytest.fixture(scope="module")
def stage(pgvector_dsn: str, rabbitmq_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """All services, up."""
    folder = tmp_path_factory.mktemp("compose")
    port = services.free_port()
    compose_broker = resolved(SERVICES["web"]["environment"]["BROKER_URL"])
    query = pgvector_dsn.partition("?")[2]
    addresses = {
        "@redis:6379": f"@127.0.0.1:{port}",
        compose_broker: rabbitmq_url,
        "@postgres:5432/konstruct": f"@/konstruct?{query}",
        "port of redis": str(port),
        "port of web": str(services.free_port()),
    }
    made = Stage(folder, addresses)
    shutil.copy(services.valkey_binary(), made.tools / "redis-server")
    with psycopg.connect(pgvector_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE konstruct")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(made.run("redis"))
            wait_for(lambda: made.healthy("redis"), "redis", folder)
            migration = made.command("migrate")
            subprocess.run(migration, env=made.environment("migrate"), cwd=EXAMPLE, check=True)
            for name in ("web", "worker", "beat"):
                stack.enter_context(made.run(name))
            for name in ("web", "worker", "beat"):
                wait_for(lambda name=name: made.healthy(name), name, folder)
            yield made
    finally:
        with psycopg.connect(pgvector_dsn, autocommit=True) as connection:
            connection.execute("DROP DATABASE konstruct WITH (FORCE)")
            connection.execute("DROP ROLE IF EXISTS konstruct_app")


def client(stage: Stage, variable: str | None) -> redis.Redis:
    """A client as compose's users connect, or as nobody."""
    if variable is None:
        return redis.Redis(port=int(stage.addresses["port of redis"]), decode_responses=True)
    return redis.Redis.from_url(stage.environment("web")[variable], decode_responses=True)


def test_commands_make_a_service_that_answers(stage: Stage):
    """A message goes in over HTTP, signed through RabbitMQ, and its answer is in acme's window."""
    import json

    base = f"http://127.0.0.1:{stage.addresses['port of web']}"
    tokens = dict(p.split("=") for p in stage.environment("web")["KONSTRUCT_TOKENS"].split(","))
    headers = {"X-Tenant": "acme", "Authorization": f"Bearer {tokens['acme']}"}
    fields = ("message_id", "thread_id", "agent_id", "user_id", "text")
    body = json.dumps(dict.fromkeys(fields, "x") | {"text": "hello"}).encode()
    request = urllib.request.Request(f"{base}/channels/test/messages", body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
    window = urllib.request.Request(f"{base}/agents/x/users/x/messages", headers=headers)

    def answered() -> bool:
        with urllib.request.urlopen(window, timeout=20) as answer:
            return len(json.load(answer)["messages"]) == 2

    wait_for(answered, "the answer", stage.folder)
    with urllib.request.urlopen(f"{base}/page/state", timeout=20) as answer:
        state = json.load(answer)
    assert "acme:memory:short:x:x" in state["keys"]["acme"]
    assert state["rows"]["globex"] == []


PUBLISH_TO_A_FULL_QUEUE = """
from kombu import Queue
from kombu.exceptions import OperationalError
from konstruct.orchestrator import app, respond
from tenantry import tenant_scope

full = Queue("konstruct.full", queue_arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
try:
    with tenant_scope("acme"):
        respond.apply_async(({},), queue=full)
    print("accepted")
except OperationalError:
    print("refused")
finally:
    with app.connection_for_write() as connection:
        full(connection.channel()).delete()
"""


def test_message_that_rabbitmq_does_not_take_is_not_accepted(stage: Stage):
    """Publishes are confirmed: what a full queue refuses is a 503, and the channel delivers it again."""
    command = [sys.executable, "-c", PUBLISH_TO_A_FULL_QUEUE]
    done = subprocess.run(command, env=stage.environment("web"), cwd=EXAMPLE, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stdout + done.stderr


def test_default_user_is_off(stage: Stage):
    """RESET returns to it, and then nothing is allowed any more."""
    with pytest.raises(redis.exceptions.AuthenticationError):
        client(stage, None).ping()
    connection = client(stage, "REDIS_URL").connection_pool.get_connection()
    connection.send_command("RESET")
    assert connection.read_response() == "RESET"
    connection.send_command("GET", "acme:session:x")
    with pytest.raises(redis.exceptions.AuthenticationError):
        connection.read_response()
    connection.disconnect()


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "no-tenant", "1"),
        ("EVAL", "return redis.call('SET', 'no-tenant', '1')", "0"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
    ],
    ids=lambda command: command[0],
)
def test_fleets_user_may_not(stage: Stage, command: tuple[str, ...]):
    """By the server itself, keys inside Lua included."""
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
        client(stage, "REDIS_URL").execute_command(*command)


def test_operators_user_sees_names_and_no_values(stage: Stage):
    """For the page."""
    operator = client(stage, "OPERATOR_REDIS_URL")
    assert isinstance(list(operator.scan_iter(count=1000)), list)
    with pytest.raises(redis.exceptions.NoPermissionError):
        operator.get("acme:session:x")


def test_hostname_is_what_the_workers_check_asks_for():
    """Celery names a worker after the host, as the shell's ``hostname`` says it."""
    said = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert said == socket.gethostname()
