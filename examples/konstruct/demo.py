"""``make demo``: two tenants with equal ids, and eleven attacks, on real servers.

Starts an embedded Valkey (or uses the empty database that REDIS_URL names) and PostgreSQL, two
uvicorn servers, two Celery prefork workers and beat: the service without tenantry, and konstruct.
Exit status 0 only if every check held. Everything is stopped at the end, by Ctrl-C too.

``make serve`` starts konstruct and stays up: the page that it prints shows both tenants.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from http_client import call
from stack import Stack, StackError

HERE = Path(__file__).resolve().parent
TOKENS = {"acme": secrets.token_hex(8), "globex": secrets.token_hex(8)}
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
IMPORTED = (
    "REDIS_URL",
    "BEFORE_REDIS_URL",
    "DATABASE_URL",
    "BEFORE_DATABASE_URL",
    "MIGRATION_DATABASE_URL",
    "KONSTRUCT_TOKENS",
)
OURS = ("acme:*", "globex:*", "globex:memory:*", "None:*")
PER_MESSAGE = ("dedup", "answer", "written")
CELERYS = ("celery-task-meta-*", "_kombu.binding*", "unacked*", "before", "konstruct", "tenantry.quarantine")


class Report:
    """Prints as it goes, and remembers what did not hold."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._started = time.monotonic()

    def title(self, text: str) -> None:
        """Begin a section."""
        elapsed = f"[{time.monotonic() - self._started:4.1f} s]"
        print(f"\n{_paint('1', text)}  {_paint('2', elapsed)}", flush=True)

    def line(self, text: str, *, mark: str = " ", colour: str = "0") -> None:
        """One paragraph, wrapped, behind a mark."""
        body = textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="      ")
        print(f"  {_paint(colour, mark)}{body[3:]}", flush=True)

    def check(self, name: str, deed: Callable[[], str], *, mark: str, colour: str) -> None:
        """Run one check; print what it found."""
        try:
            found = deed()
        except Exception as error:  # whatever it is, the check did not hold, and the others go on
            self.failures.append(name)
            self.line(f"{name}: {type(error).__name__}: {error}", mark="!", colour="1;31")
        else:
            self.line(found, mark=mark, colour=colour)


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def main() -> int:
    """Run the demo; the number of failures is what decides the exit status."""
    report = Report()
    tokens = ",".join("=".join(pair) for pair in TOKENS.items())
    try:
        with Stack({"KONSTRUCT_TOKENS": tokens, "KONSTRUCT_NIGHTLY_SECONDS": "5"}) as stack:
            if "--serve" in sys.argv[1:]:
                return _serve(stack, report)
            _run(stack, report)
    except (StackError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Everything is stopped.", file=sys.stderr)
        return 0 if "--serve" in sys.argv[1:] else 130  # the one ends by itself, the other so
    if report.failures:
        print(f"\n{len(report.failures)} checks did not hold: {'; '.join(report.failures)}")
        return 1
    report.title("Every check held; everything is stopped.")
    return 0


def _serve(stack: Stack, report: Report) -> int:
    report.title("Starting Valkey, PostgreSQL, konstruct's web server, worker and beat")
    stack.environment |= {"REDIS_URL": stack.start_valkey(), "KONSTRUCT_PAGE": "1"}
    _start_postgres(stack)
    url = stack.launch_web("web", "konstruct.app:app")
    stack.launch_worker("worker", "konstruct.orchestrator")
    stack.launch_beat("beat", "konstruct.orchestrator")
    stack.wait_web("web", url)
    stack.wait_worker("worker")
    report.title("Everything is up; Ctrl-C stops it.")
    print(f"\n    {_paint('1', url)}\n", flush=True)
    stack.wait("a service", lambda: False, seconds=float("inf"))
    return 0


def _start_postgres(stack: Stack) -> None:
    """A database, the application's role, the tables: what compose's service ``migrate`` does."""
    owner = stack.start_postgres()
    application = owner.replace("postgres:@", "konstruct_app@").replace("postgres@", "konstruct_app@")
    stack.environment |= {"MIGRATION_DATABASE_URL": owner, "DATABASE_URL": application}
    stack.run("migrate", sys.executable, "-m", "konstruct.migrate")


def _run(stack: Stack, report: Report) -> None:
    report.title("Starting Valkey, PostgreSQL, two web servers, two prefork workers, beat")
    url = os.environ.get("REDIS_URL") or stack.start_valkey()
    stack.environment |= {"REDIS_URL": url, "BEFORE_REDIS_URL": _next_database(url)}
    _start_postgres(stack)
    stack.environment["BEFORE_DATABASE_URL"] = _another_database(stack.environment["DATABASE_URL"])
    os.environ.update({name: stack.environment[name] for name in IMPORTED})
    _set_up_before(stack.environment["MIGRATION_DATABASE_URL"])
    with _empty_database(url) as raw, _empty_database(stack.environment["BEFORE_REDIS_URL"]) as raw_before:
        try:
            _show(stack, report, raw_before, raw)
        finally:
            stack.end(keep="valkey")  # workers write their own keys until they have stopped


def _show(stack: Stack, report: Report, raw_before: Any, raw: Any) -> None:
    before_url, after_url = _launch(stack, report, raw)
    import attacks  # reads the environment, which is complete only now

    targets = attacks.Targets(before_url, after_url, raw_before, raw, TOKENS, lambda: stack.log("worker"))
    _converse(report, after_url)
    _remember(report, after_url)
    _summarise(report, after_url)
    _show_keys(report, raw)
    _attack(report, attacks, targets)


def _set_up_before(owner: str) -> None:
    """A database of the service without tenantry; konstruct would not start on its tables."""
    import before.database
    from sqlalchemy import create_engine, text

    engine = create_engine(owner, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE before"))
    engine.dispose()
    engine = create_engine(_another_database(owner))
    with engine.begin() as connection:
        for statement in before.database.SETUP.format(role="konstruct_app").split(";"):
            if statement.strip():
                connection.execute(text(statement))
    engine.dispose()


def _another_database(url: str) -> str:
    return urlsplit(url)._replace(path="/before").geturl()


def _next_database(url: str) -> str:
    """The service without tenantry gets a database of its own, or the two would meet in their keys."""
    parts = urlsplit(url)
    return parts._replace(path=f"/{int(parts.path.strip('/') or 0) + 1}").geturl()


@contextmanager
def _empty_database(url: str) -> Iterator[Any]:
    """A client for a database that nobody uses; what the demo writes is deleted at the end."""
    import redis

    raw = redis.Redis.from_url(url, decode_responses=True)
    try:
        size = raw.dbsize()
    except redis.RedisError as error:
        raise StackError(f"{_shown(url)} does not answer: {error}") from error
    if size:
        raise StackError(
            f"{_shown(url)} holds {size} keys; the demo wants empty databases, so as to touch none."
        )
    try:
        yield raw
    finally:
        _forget(raw)
        raw.close()


def _shown(url: str) -> str:
    """The address without its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _launch(stack: Stack, report: Report, raw: Any) -> tuple[str, str]:
    stack.launch_worker("worker", "konstruct.orchestrator")
    stack.launch_worker("worker-before", "before.service:worker")
    stack.launch_beat("beat", "konstruct.orchestrator")
    after_url = stack.launch_web("web", "konstruct.app:app")
    before_url = stack.launch_web("web-before", "before.service:app")
    info = raw.info("server")
    version = info.get("valkey_version") or info["redis_version"]
    report.line(
        f"{info.get('server_name', 'redis')} {version} at {_shown(stack.environment['REDIS_URL'])}", mark="+"
    )
    report.line("PostgreSQL with pgvector; konstruct's role may SELECT and INSERT, nothing else", mark="+")
    for name, url in (("web", after_url), ("web-before", before_url)):
        stack.wait_web(name, url)
        report.line(f"uvicorn at {url} ({name})", mark="+")
    for name in ("worker", "worker-before"):
        stack.wait_worker(name)
        report.line(f"celery prefork worker ({name})", mark="+")
    return before_url, after_url


def _converse(report: Report, url: str) -> None:
    lines = (HERE / "data" / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    messages = [json.loads(line) for line in lines]
    report.title(
        f"Posting {len(messages)} messages of two tenants that share every agent, user and message id"
    )
    expected: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for message in messages:
        answer = _send(url, message)
        assert answer.status == 202, answer
        said = message["text"].removeprefix(f"@{message['agent_id']} ")
        expected[message["tenant"], message["agent_id"], message["user_id"]].append(said)
    report.line(f"{len(messages)} x 202 Accepted", mark="+")
    report.check("redelivery", lambda: _redeliver(url, messages), mark="✓", colour="32")
    for (tenant, agent, user), texts in sorted(expected.items()):
        report.check(
            f"window of {tenant}/{agent}/{user}",
            lambda tenant=tenant, path=f"{url}/agents/{agent}/users/{user}/messages", texts=texts: _window(
                path, tenant, texts
            ),
            mark="✓",
            colour="32",
        )


def _send(url: str, message: dict[str, str]) -> Any:
    tenant, channel = message["tenant"], message["channel"]
    body = {name: value for name, value in message.items() if name not in ("tenant", "channel")}
    return call(f"{url}/channels/{channel}/messages", body, tenant=tenant, token=TOKENS[tenant])


def _redeliver(url: str, messages: list[dict[str, str]]) -> str:
    """Channels deliver again when they are not sure."""
    statuses = [_send(url, message).body["status"] for message in messages]
    assert statuses == ["duplicate"] * len(messages), statuses
    return f"delivered again: {len(messages)} x duplicate, nothing is answered twice"


def _remember(report: Report, url: str) -> None:
    question = "Where will our office be?"
    report.title(f"Long-term memory: both tenants ask “{question}”")
    for tenant, expected in (("acme", "Coolsingel"), ("globex", "")):
        report.check(
            f"memory of {tenant}",
            lambda tenant=tenant, expected=expected: _recall(url, tenant, question, expected),
            mark="✓",
            colour="32",
        )


def _recall(url: str, tenant: str, question: str, expected: str) -> str:
    path = f"{url}/agents/concierge/users/U024BE7LH/memories?q={quote(question)}"
    found = call(path, tenant=tenant, token=TOKENS[tenant]).body["memories"]
    assert found, "nothing is remembered"
    assert expected in found[0]["content"], found
    others = {"acme": "Initech", "globex": "Coolsingel"}[tenant]
    assert not any(others in memory["content"] for memory in found), found
    return f"{tenant}: “{found[0]['content']}” (cosine distance {found[0]['distance']})"


def _summarise(report: Report, url: str) -> None:
    report.title("The nightly job, every 5 seconds here: a task of no tenant fans out one per tenant")
    for tenant in TOKENS:
        name, deed = f"summary of {tenant}", lambda tenant=tenant: _summary(url, tenant)
        report.check(name, deed, mark="✓", colour="32")


def _summary(url: str, tenant: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        day = dt.datetime.now(dt.UTC).date().isoformat()
        answer = call(f"{url}/summaries/{day}", tenant=tenant, token=TOKENS[tenant])
        if answer.status == 200 and answer.body["summary"].startswith("6 messages"):
            return f"{tenant}: {answer.body['summary']}"
        time.sleep(0.2)
    raise AssertionError(f"no summary of {tenant}: {answer}")


def _window(path: str, tenant: str, texts: list[str]) -> str:
    deadline = time.monotonic() + 60
    while True:
        window = call(path.replace("+", "%2B"), tenant=tenant, token=TOKENS[tenant]).body["messages"]
        if len(window) >= 2 * len(texts) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    said = [message["text"] for message in window if message["role"] == "user"]
    assert said == texts, f"the window holds {said}"
    shown = "\n".join(f"      {m['role']:>9}: {m['text']}" for m in window)
    print(f"\n    {_paint('1', tenant)}  {path.partition('/agents/')[2]}\n{shown}", flush=True)
    return f"{tenant}: {len(texts)} messages, in order, and nobody else's"


def _attack(report: Report, attacks: Any, targets: Any) -> None:
    report.title("Attacks: first on the service without tenantry, then on konstruct")
    for number, attack in enumerate(attacks.ATTACKS, 1):
        print(f"\n  {number}. {_paint('1', attack.title)}", flush=True)
        name = f"attack {number} without"
        report.check(name, lambda a=attack: f"without: {a.before(targets)}", mark="✗", colour="31")
        name = f"attack {number} with"
        report.check(name, lambda a=attack: f"with: {a.after(targets)}", mark="✓", colour="32")


def _show_keys(report: Report, raw: Any) -> None:
    from tenantry.keys import owner_of

    report.title("Keys in the server, by tenant")
    groups: dict[str | None, list[str]] = defaultdict(list)
    for key in sorted(raw.scan_iter(count=1000)):
        groups[owner_of(key)].append(key)
    for tenant in sorted(filter(None, groups)):
        shown = [key for key in groups[tenant] if key.split(":")[1] not in PER_MESSAGE]
        rest = len(groups[tenant]) - len(shown)
        report.line(f"{tenant}: {', '.join(shown)}, and {rest} of {', '.join(PER_MESSAGE)}", mark="+")
    report.line(f"Celery's own: {len(groups[None])}, for example {groups[None][0]}", mark="+")
    report.check("keys by tenant", lambda: _only_two(groups), mark="✓", colour="32")


def _only_two(groups: dict[str | None, list[str]]) -> str:
    assert set(groups) == {"acme", "globex", None}, sorted(map(str, groups))
    lasting = [[k for k in groups[tenant] if ":ratelimit:" not in k] for tenant in ("acme", "globex")]
    names = [{key.partition(":")[2] for key in keys} for keys in lasting]  # buckets end within seconds
    assert names[0] == names[1], names
    return "two tenants, the same names behind their prefixes, nothing shared"


def _forget(raw: Any) -> None:
    """Delete what the demo has written; the database was empty, but it need not be ours alone."""
    for pattern in (*OURS, *CELERYS):
        for key in raw.scan_iter(pattern, count=1000):
            raw.delete(key)


if __name__ == "__main__":
    sys.exit(main())
