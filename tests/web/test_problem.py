"""Refusals as problem documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tenantry import ResolutionError
from tenantry.web.problem import problem_of, refusal


def test_problem_has_the_members_of_the_standard_and_no_others() -> None:
    """RFC 9457: ``about:blank`` has the title of the status; a detail is optional."""
    problem = problem_of(refusal(404, "There is no such tenant.", ("Header('X-Tenant')",)))
    assert problem.status == 404
    assert problem.status_line == "404 Not Found"
    assert json.loads(problem.body) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such tenant.",
    }
    assert problem.headers == (
        ("content-type", "application/problem+json"),
        ("content-length", str(len(problem.body))),
        ("cache-control", "no-store"),
    )
    assert "detail" not in json.loads(problem_of(ResolutionError(403, "Stop")).body)


def test_challenge_comes_with_401_alone() -> None:
    """RFC 9110 wants it there."""
    assert dict(problem_of(refusal(401, "Who?"), "Cookie").headers)["www-authenticate"] == "Cookie"
    assert dict(problem_of(refusal(401, "Who?")).headers)["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in dict(problem_of(refusal(403, "No."), "Cookie").headers)


@pytest.mark.parametrize("status", [200, 302, 399, 600, 0, -1, "403", None, True, 403.0])
def test_what_is_no_status_of_a_refusal_becomes_400(status: Any) -> None:
    """A resolver of the application may raise anything; it is never a success."""
    problem = problem_of(ResolutionError(status, ""))
    assert (problem.status, json.loads(problem.body)["status"]) == (400, 400)
    assert json.loads(problem.body)["title"] == "Bad Request"


@pytest.mark.parametrize(
    ("status", "line"), [(400, "400 Bad Request"), (599, "599 Error"), (499, "499 Error")]
)
def test_status_stands_as_it_is_within_its_range(status: int, line: str) -> None:
    """Both ends of it, and statuses that have no phrase."""
    problem = problem_of(ResolutionError(status, "Été"))
    assert (problem.status, problem.status_line) == (status, line)
    assert problem.body.isascii()
    assert json.loads(problem.body)["title"] == "Été"
