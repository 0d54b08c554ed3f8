"""Rate limit, de-duplication and engaged threads, on fakeredis and through the ASGI app."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fakeredis")

from kombu.exceptions import OperationalError

from konstruct import deliveries, memory_short, orchestrator, rate_limits, router, threads, tools
from konstruct.orchestrator import Incoming
from tenantry import carry_tenant, tenant_scope
from tests.examples.konstruct.fleet import EXAMPLE

MESSAGE = Incoming(message_id="m1", thread_id="T1", agent_id="concierge", user_id="U1", text="x")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Incoming]:
    """What would have gone to the queue."""
    sent: list[Incoming] = []

    class Sent:
        id = "task-1"

    def delay(message: Incoming) -> Sent:
        sent.append(message)
        return Sent()

    monkeypatch.setattr(orchestrator.respond, "delay", delay)
    return sent


def body(response: Any) -> Any:
    return json.loads(response.body)


def test_bucket_empties_and_names_the_wait(fake, configured):
    """Capacity at once, then one at a time; other channels and tenants have their own."""
    configured(rate_capacity=2.0, rate_per_second=0.001)
    with tenant_scope("acme"):
        assert [rate_limits.take("slack") for _ in range(2)] == [0, 0]
        assert 900 < rate_limits.take("slack") <= 1000
        assert rate_limits.take("whatsapp") == 0
    with tenant_scope("globex"):
        assert rate_limits.take("slack") == 0
    assert fake.ttl("acme:ratelimit:slack") > 0


def test_bucket_refills_with_time_and_never_above_its_capacity(fake, configured):
    """Time is the server's: a bucket that was last used long ago is full, not fuller."""
    configured(rate_capacity=2.0, rate_per_second=1.0)
    fake.hset("acme:ratelimit:slack", mapping={"tokens": "0", "at": "1000"})
    with tenant_scope("acme"):
        assert [rate_limits.take("slack") for _ in range(2)] == [0, 0]
        assert rate_limits.take("slack") > 0


def test_bucket_is_atomic(fake, configured):
    """Twenty threads, ten tokens: ten pass."""
    configured(rate_capacity=10.0, rate_per_second=0.001)
    waits: list[float] = []
    with tenant_scope("acme"):
        draw = carry_tenant(lambda: waits.append(rate_limits.take("slack")))
    drawing = [threading.Thread(target=draw) for _ in range(20)]
    for thread in drawing:
        thread.start()
    for thread in drawing:
        thread.join()
    assert waits.count(0) == 10


def test_limited_channel_answers_429_and_claims_nothing(fake, configured, published):
    """The channel delivers again later, and the message is not a duplicate then."""
    configured(rate_capacity=1.0, rate_per_second=0.001)
    with tenant_scope("acme"):
        router.route("slack", Incoming(**{**MESSAGE, "thread_id": "U1"}))
        answer = router.route("slack", Incoming(**{**MESSAGE, "message_id": "m2"}))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 900
        assert deliveries.claim("m2") is None
    assert len(published) == 1


def test_redelivered_message_is_published_once(fake, published):
    """And answered with the task of the first delivery; another tenant's m1 is another message."""
    direct = Incoming(**{**MESSAGE, "thread_id": "U1"})
    with tenant_scope("acme"):
        assert body(router.route("slack", direct)) == {"status": "accepted", "task_id": "task-1"}
        assert body(router.route("slack", direct)) == {"status": "duplicate", "task_id": "task-1"}
    with tenant_scope("globex"):
        assert router.route("slack", direct).status_code == 202
    assert len(published) == 2


def test_delivery_that_meets_another_on_its_way_is_told_to_come_again(fake, published):
    """Neither lost nor doubled: the first may still fail."""
    with tenant_scope("acme"):
        deliveries.claim("m1")
        answer = router.route("slack", MESSAGE)
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert 0 < fake.ttl("acme:dedup:m1") <= 30


def test_queue_out_of_reach_gives_the_message_back(fake, monkeypatch):
    """503, and the next delivery goes through."""

    def fails(message: Incoming) -> None:
        raise OperationalError

    monkeypatch.setattr(orchestrator.respond, "delay", fails)
    with tenant_scope("acme"):
        assert router.route("slack", Incoming(**{**MESSAGE, "thread_id": "U1"})).status_code == 503
    assert fake.get("acme:dedup:m1") is None


def test_thread_is_engaged_by_a_mention(fake, published):
    """Before it the agent is not meant, after it every message is; another tenant's T1 is another."""
    with tenant_scope("acme"):
        assert not threads.addressed("T1", "concierge", "U1", "hello all")
        assert threads.addressed("T1", "concierge", "U1", "@concierge hello")
        assert threads.addressed("T1", "concierge", "U2", "and me")
        assert not threads.addressed("T1", "butler", "U2", "and me")
        mentioned = Incoming(**{**MESSAGE, "text": "@concierge hello"})
        assert body(router.route("slack", mentioned))["status"] == "accepted"
        assert published[-1]["text"] == "hello"
    with tenant_scope("globex"):
        assert not threads.addressed("T1", "concierge", "U1", "hello all")
        assert body(router.route("slack", MESSAGE))["status"] == "not addressed"
    assert 0 < fake.ttl("acme:engaged:T1") <= 1800


def test_pending_tool_waits_for_its_user_and_expires(fake, configured):
    """Another user's yes does not count."""
    configured(confirm_ttl=40)
    with tenant_scope("acme"):
        tools.ask("T1", "U1", "clear_history")
        assert tools.pending("T1", "U1") == "clear_history"
        assert tools.pending("T1", "U2") is None
    assert 0 < fake.ttl("acme:tool_confirm:T1") <= 40
    fake.delete("acme:tool_confirm:T1")
    with tenant_scope("acme"):
        assert tools.pending("T1", "U1") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [("Yes", True), ("yes!", True), (" No. ", False), ("yesterday", None), ("", None)],
)
def test_verdict_is_one_word(text: str, word: bool | None):
    """Anything else is no word."""
    assert tools.verdict(text) is word


def request(**options: Any) -> tuple[int, dict[str, str], bytes]:
    """One request to the whole application, without a server."""
    from konstruct.app import app

    sent: list[dict[str, Any]] = []
    content = options.pop("content", b"")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/channels/slack/messages",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"x-tenant", b"acme"), (b"authorization", b"Bearer s3cret")],
        **options,
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent)


@pytest.fixture
def tokens(configured) -> None:
    """A token for acme."""
    import konstruct.app  # noqa: F401 - its settings are changed too

    configured(tokens={"acme": "s3cret"})


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 200_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"message_id": "1"}', 422),
        (json.dumps({**MESSAGE, "text": 1}).encode(), 422),
        (json.dumps({**MESSAGE, "message_id": ""}).encode(), 422),
        (json.dumps({**MESSAGE, "message_id": "x" * 513}).encode(), 422),
        (json.dumps({**MESSAGE, "message_id": "\ud800"}).encode(), 422),
    ],
)
def test_bad_bodies_are_refused(fake, tokens, published, content: bytes, status: int):
    """As a problem document, with nothing of the input in it, and nothing published."""
    found, headers, answer = request(content=content)
    assert found == status
    assert headers["content-type"].startswith("application/problem+json")
    assert b"xxx" not in answer
    assert published == []


def test_message_ids_of_a_channel_never_meet_the_services_own_marks(fake):
    """``m1/user`` is a message like any other, before and after ``m1`` was written."""
    with tenant_scope("acme"):
        memory_short.append_message("concierge", "U1", "user", "one", message_id="m1")
        assert deliveries.claim("m1/user") is None
        deliveries.claim("m2/user")
        assert memory_short.append_message("concierge", "U1", "user", "two", message_id="m2")
        assert memory_short.append_message("concierge", "U1", "user", "x", message_id="x" * 512)


@pytest.mark.parametrize("field", ["message_id", "thread_id", "agent_id", "user_id", "text"])
@pytest.mark.parametrize("value", ["", "x" * 513, "a\0b", "a\ud800b"], ids=["empty", "long", "nul", "half"])
def test_what_the_worker_could_not_keep_is_refused_by_the_router(
    fake, tokens, published, field: str, value: str
):
    """Not accepted with 202 and then lost; and nothing is claimed, so that a corrected one goes through."""
    fine = field == "text" and value in ("", "x" * 513)
    message = {**MESSAGE, "user_id": "T1", field: value}
    if field in ("user_id", "thread_id"):
        message |= {"thread_id": value, "user_id": value}
    status, _, answer = request(content=json.dumps(message).encode())
    assert status == (202 if fine else 422), answer
    assert len(published) == fine
    assert bool(fake.keys()) == fine


def test_search_for_what_cannot_be_kept_is_refused(fake, tokens):
    """A NUL in the path or in the question is an answer, not a failure of the database."""
    path, headers = (
        "/agents/a/users/\0/memories",
        [(b"x-tenant", b"acme"), (b"authorization", b"Bearer s3cret")],
    )
    assert request(path=path, method="GET", headers=headers)[0] == 422
    path = "/agents/a/users/u/memories"
    assert request(path=path, method="GET", headers=headers, query_string=b"q=%00")[0] == 422


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("@concierge", True),
        ("well, @concierge: hello", True),
        ("(@concierge)", True),
        ("@concierge-night hello", False),
        ("@concierge2 hello", False),
        ("mail me@concierge", False),
    ],
)
def test_mention_is_a_word_of_its_own(fake, text: str, meant: bool):
    """An agent is not meant by the name of another one that begins alike."""
    with tenant_scope("acme"):
        assert threads.addressed("T1", "concierge", "U1", text) is meant


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        ([(b"x-tenant", b"acme")], 404),
        ([(b"x-tenant", b"acme"), (b"authorization", b"Bearer wrong")], 404),
        ([(b"x-tenant", b"acme"), (b"authorization", b"Bearer \xff")], 404),
        ([(b"x-tenant", b"globex"), (b"authorization", b"Bearer s3cret")], 404),
        ([(b"x-tenant", b"a:b"), (b"authorization", b"Bearer s3cret")], 400),
    ],
)
def test_callers_who_may_not_act_are_refused(fake, tokens, published, headers: list, status: int):
    """No tenant, no token, somebody else's token."""
    found, answer_headers, _ = request(headers=headers, content=json.dumps(MESSAGE).encode())
    assert found == status
    assert answer_headers["content-type"].startswith("application/problem+json")
    assert published == []


def test_page_exists_only_where_it_is_switched_on(fake, tokens):
    """It shows every tenant; here it is an ordinary path that needs one."""
    assert request(path="/page/state", method="GET", headers=[])[0] == 400
    assert request(path="/", method="GET")[0] == 404


def test_no_signature_of_the_example_names_a_tenant():
    """Nor does any statement, but for the migration and the attacks."""
    import ast

    for path in sorted((EXAMPLE / "konstruct").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                named = {argument.arg for argument in arguments} & {"tenant_id", "owner", "tenant"}
                allowed = {"_rows"} if path.name == "page.py" else set()
                assert not named or node.name in allowed, f"{path}:{node.lineno}"


def test_example_uses_the_public_names_alone():
    """No underscore, and no module that is not in the documentation."""
    import ast

    public = {
        "tenantry",
        "tenantry.keys",
        "tenantry.resolvers",
        "tenantry.integrations.asgi",
        "tenantry.integrations.celery",
        "tenantry.integrations.redis",
        "tenantry.integrations.sqlalchemy",
    }
    for path in sorted(Path(EXAMPLE).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tenantry"):
                assert node.module in public, f"{path}:{node.lineno}"
                assert not any(alias.name.startswith("_") for alias in node.names)


def test_route_is_short_enough_to_read():
    """The whole policy of the router is one function."""
    assert len(inspect.getsource(router.route).splitlines()) < 20
