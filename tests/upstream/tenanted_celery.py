"""A plugin for Celery's own suite: ``install`` on every app of its fixtures, and one tenant around every test.

``TENANTED=1`` switches that on; without it, the suite runs as it is. Either way the outcome of each test is
written to ``TENANTED_REPORT``.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

TENANTED = os.environ.get("TENANTED") == "1"
APPS = ("celery_app", "celery_session_app")
outcomes: dict[str, str] = {}
failures: dict[str, str] = {}


def pytest_configure() -> None:
    """Do what an application does that hands publishing to a pool of threads."""
    if not TENANTED:
        return
    from tenantry import carry_tenant, current_tenant_or_none

    submit = concurrent.futures.ThreadPoolExecutor.submit

    def carrying(self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        active = current_tenant_or_none() is not None
        return submit(self, carry_tenant(function) if active else function, *args, **kwargs)

    concurrent.futures.ThreadPoolExecutor.submit = carrying  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    """Install on the app that a fixture has made."""
    made = yield
    if TENANTED and fixturedef.argname in APPS:
        from tenantry.integrations.celery import install

        install(made)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    """Run each test and its fixtures under a tenant: starting the worker publishes a task."""
    if not TENANTED:
        return (yield)
    from tenantry import tenant_scope

    with tenant_scope("acme", in_generator=True):  # pluggy takes every step in the context of the call
        return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a test: the first phase that is no success, else how its call went."""
    if report.when == "call" or not report.passed:
        if outcomes.get(report.nodeid) in (None, "passed"):
            outcomes[report.nodeid] = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        if report.failed:
            failures[report.nodeid] = report.longreprtext[-3000:]


def pytest_sessionfinish() -> None:
    """Write the report."""
    Path(os.environ["TENANTED_REPORT"]).write_text(json.dumps({"tests": outcomes, "failures": failures}))
