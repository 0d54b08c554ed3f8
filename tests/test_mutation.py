"""Break the source in small ways, one at a time: the tests of each part notice nearly all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.deep,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="scripts/mutate.py needs sys.monitoring"),
]

ROOT = Path(__file__).parent.parent
CELERY = "tests/integrations/celery tests/test_cli_quarantine.py"
REDIS = " ".join(
    f"tests/integrations/redis/test_{part}.py" for part in ("verdict", "quick", "encoding", "packing")
)
ASGI, WSGI = "tests/integrations/test_asgi.py", "tests/integrations/test_wsgi.py"
#: Part: the least share that has to be noticed, in per cent; the tests; the files under src/tenantry.
PARTS = {
    "context": (
        95,
        "tests/test_context.py tests/test_frames.py tests/test_steps.py",
        "context.py frames.py steps.py",
    ),
    "keys": (95, "tests/keys", "keys"),
    "ids": (95, "tests/test_ids.py", "ids.py"),
    "propagation": (95, "tests/test_propagation.py", "propagation.py"),
    "resolvers": (95, f"tests/test_resolvers.py {ASGI}", "resolvers.py"),
    "lookup": (95, f"tests/test_lookup.py {ASGI} {WSGI}", "lookup.py"),
    "web": (90, f"tests/web tests/test_resolvers.py {ASGI} {WSGI}", "web integrations/wsgi.py"),
    "asgi": (90, ASGI, "integrations/asgi.py"),
    "django": (90, "tests/integrations/test_django.py", "integrations/django.py"),
    "celery": (90, CELERY, "integrations/celery cli/quarantine.py"),
    "verdict": (
        95,
        f"{REDIS} tests/integrations/redis/test_commands.py::test_every_command_of_the_table_has_a_rule",
        " ".join(f"integrations/redis/{file}.py" for file in ("rules", "verdict", "quick", "encoding")),
    ),
    "fastapi": (90, "tests/integrations/test_fastapi.py", "integrations/fastapi.py"),
    "flask": (90, "tests/integrations/test_flask.py", "integrations/flask.py"),
}


@pytest.mark.parametrize("part", PARTS)
def test_mutants_are_noticed(part: str) -> None:
    """The survivors are argued in docs/reference/deep-runs.md."""
    least, tests, files = PARTS[part]
    command = [sys.executable, "scripts/mutate.py", "--least", str(least), "--tests", *tests.split()]
    paths = [f"src/tenantry/{file}" for file in files.split()]
    done = subprocess.run([*command, "--", *paths], cwd=ROOT, text=True, capture_output=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
