"""The three quick-starts, each started by its own server as its docstring says, and spoken to over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

import tenantry
from tests import services
from tests.integration.web.servers import Connection, Reply

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-at-least-thirty-two-bytes"
COMMANDS = {
    "fastapi": "-m uvicorn app:app --port {port} --log-level warning",
    "flask": "-m flask run --port {port}",
    "django": "app.py runserver {port} --noreload",
}


@pytest.fixture(scope="module", params=COMMANDS)
def shop(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a quick-start that runs."""
    port = services.free_port()
    source = Path(tenantry.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[request.param].format(port=port).split()],
        cwd=ROOT / "examples" / f"quickstart_{request.param}",
        env={**os.environ, "JWT_SECRET": SECRET, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        services.wait_until(lambda: process.poll() is not None or healthy(port), "the quick-start to answer")
        assert process.poll() is None
        yield port
    finally:
        services.stop(process)


def healthy(port: int) -> bool:
    try:
        return ask(port, "GET", "/healthz").status == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, **claims: object) -> Reply:
    headers = ["Connection: close"]
    if claims:
        headers.append(f"Authorization: Bearer {jwt.encode(claims, SECRET)}")
    with Connection(port, host="localhost") as connection:
        return connection.ask(method, path, *headers)


def test_two_shops_do_not_meet(shop: int) -> None:
    """The same cart of two shops is two carts."""
    path = "/carts/42/items/"
    assert ask(shop, "POST", path + "apple", tenant="acme").json["items"] == ["apple"]
    assert ask(shop, "POST", path + "pear", tenant="globex").json == {
        "tenant": "globex",
        "key": "globex:cart:42",
        "items": ["pear"],
    }
    assert ask(shop, "POST", path + "plum", tenant="acme").json["items"] == ["apple", "plum"]


def test_refusals(shop: int) -> None:
    """No token, a token without a tenant, an unknown shop and an inactive one."""
    path = "/carts/42/items/apple"
    assert ask(shop, "POST", path).status == 401
    assert ask(shop, "POST", path, sub="jane").status == 401
    assert ask(shop, "POST", path, tenant="nobody").status == 404
    assert ask(shop, "POST", path, tenant="initech").status == 403
    assert ask(shop, "POST", path, tenant=["acme"]).status == 400


@pytest.mark.parametrize("name", COMMANDS)
def test_quickstart_is_short_and_safe(name: str) -> None:
    """Under sixty lines, by the caller's own claim, and no tenant id in any signature."""
    text = (ROOT / "examples" / f"quickstart_{name}" / "app.py").read_text()
    assert len(text.splitlines()) < 60
    assert "Claim(" in text
    assert "trust_client" not in text
    assert not re.search(r"def \w+\([^)]*tenant_id", text)
