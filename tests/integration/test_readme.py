"""The first five minutes of the README, with a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests import page, services

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.core
def test_readme_leads_to_a_guarded_task(tmp_path: Path) -> None:
    """The worker of the README writes each item into the cart of the tenant that published it."""
    for name, source in page.files(README).items():
        (tmp_path / name).write_text(source)
    with services.valkey_server() as server, redis.Redis.from_url(server.url) as client:
        environment = {**os.environ, "REDIS_URL": server.url}
        with services.celery_worker("shop", cwd=tmp_path, env={"REDIS_URL": server.url}):
            command = [sys.executable, "-m", "tests.page", str(README)]
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, _path()))
            subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
            services.wait_until(lambda: client.llen("globex:cart:42") == 1, "the worker to write")
        assert client.lrange("acme:cart:42", 0, -1) == [b"anvil"]
        assert client.lrange("globex:cart:42", 0, -1) == [b"doomsday device"]


def _path() -> list[str]:
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(README.parent), *(entry for entry in inherited if entry)]
