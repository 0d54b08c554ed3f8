"""``tenantry tenants``: a tenant's keys in Redis as a whole."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

import typer

from tenantry.cli.terminal import Status, confirm, finish, outcome, print_json, progress, say
from tenantry.errors import TenancyError
from tenantry.ids import ensure_tenant_id
from tenantry.keys import tenant_prefix, use_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from tenantry.integrations.redis.tenants import AuditReport, Report

    Client = redis.Redis | redis.RedisCluster

__all__ = ["tenants_app"]

tenants_app = typer.Typer(
    help=(
        "A tenant's keys in Redis as a whole: count, copy out, copy in, remove; and find keys that "
        "belong to nobody.\n\nAll of it can be run again after it was killed. Connect as a user who "
        "may list keys: the users that tenantry's ACL rules make may not."
    ),
    no_args_is_help=True,
)


class Layout(StrEnum):
    """The key layouts."""

    PLAIN = "plain"
    TAGGED = "tagged"


TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.", show_default=False)]
UrlOption = Annotated[
    str,
    typer.Option(
        "--url", envvar="REDIS_URL", help="redis://, rediss:// or unix://, with user, password and database."
    ),
]
ClusterOption = Annotated[bool, typer.Option("--cluster", help="The URL names a node of a Redis Cluster.")]
SentinelOption = Annotated[
    str | None,
    typer.Option(
        "--sentinel", metavar="SERVICE", help="The URL names a sentinel: use the primary of SERVICE."
    ),
]
LayoutOption = Annotated[
    Layout | None,
    typer.Option("--layout", envvar="TENANTRY_LAYOUT", help="Key layout of the application, else plain."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be done.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the report as JSON to stdout.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

DEFAULT_URL = "redis://127.0.0.1:6379/0"


# --- commands -----------------------------------------------------------------------------------


@tenants_app.command()
def usage(
    tenant: TenantArgument,
    url: UrlOption = DEFAULT_URL,
    cluster: ClusterOption = False,
    sentinel: SentinelOption = None,
    layout: LayoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count a tenant's keys and their memory, by type."""
    with _operations(layout) as operations:
        owner, server = ensure_tenant_id(tenant), Server(url, cluster, sentinel)
        with server.connected() as client, _watched("Counting", client) as tell:
            report = operations.usage(client, owner, on_progress=tell)
        if as_json:
            _print_report("usage", report, tenant=owner)
            return
        typer.echo(f"{owner}: {_keys(report.keys)}, {_size(report.bytes)}")
        for kind, count in sorted(report.by_type.items(), key=lambda pair: (-pair[1], pair[0])):
            typer.echo(f"  {kind:<8}{count:>12,}")


@tenants_app.command()
def purge(
    tenant: TenantArgument,
    url: UrlOption = DEFAULT_URL,
    cluster: ClusterOption = False,
    sentinel: SentinelOption = None,
    layout: LayoutOption = None,
    max_passes: Annotated[
        int, typer.Option(min=1, help="Give up after so many passes against a writer.")
    ] = 10,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove every key of a tenant.

    Stop the tenant's requests and tasks first. Passes over the keys go on until one finds nothing. If
    somebody still writes after the last one, the exit status is 1: stop the writer and run it again.
    """
    with _operations(layout) as operations:
        owner, server = ensure_tenant_id(tenant), Server(url, cluster, sentinel)
        confirm(f"Remove every key of {owner!r} from {server}?", yes=yes or dry_run)
        with server.connected() as client, _watched("Removing", client) as tell:
            report = operations.purge(client, owner, dry_run=dry_run, max_passes=max_passes, on_progress=tell)
        if as_json:
            _print_report("purge", report, tenant=owner)
        else:
            did = "would remove" if dry_run else "removed"
            told = f"{owner}: {did} {_keys(report.keys)} ({_size(report.bytes)})"
            typer.echo(told if dry_run else f"{told} in {_passes(report.passes)}")
        if report.remaining and not dry_run:
            say(
                f"The last pass still found {_keys(report.remaining)}: somebody writes. "
                "Stop the writer and run this again."
            )
            finish(Status.LEFT)


@tenants_app.command()
def export(
    tenant: TenantArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; - is stdout.", show_default=False)
    ],
    url: UrlOption = DEFAULT_URL,
    cluster: ClusterOption = False,
    sentinel: SentinelOption = None,
    layout: LayoutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Copy every key of a tenant into a file.

    JSON lines, each value as DUMP gives it. Only you may read the file. The tenant keeps its keys.
    """
    piped = str(target) == "-"
    if piped and as_json and not dry_run:
        raise typer.BadParameter("stdout is where the export goes", param_hint="--json")
    with _operations(layout) as operations:
        owner, server = ensure_tenant_id(tenant), Server(url, cluster, sentinel)
        confirm(f"Replace {target}?", yes=yes or dry_run or piped or not target.is_file())
        where = sys.stdout.buffer if piped else target
        with server.connected() as client, _watched("Copying", client) as tell:
            report = operations.export(client, owner, where, dry_run=dry_run, on_progress=tell)
        if as_json:
            _print_report("export", report, tenant=owner, file=str(target))
        else:
            did = "would copy" if dry_run else "copied"
            told = f"{owner}: {did} {_keys(report.keys)} ({_size(report.bytes)} of values) to {target}"
            say(told) if piped else typer.echo(told)


@tenants_app.command(name="import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="An export; - is stdin.", show_default=False)
    ],
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", metavar="TENANT", help="Whose keys they become, else the exported tenant's."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite keys that exist.")] = False,
    url: UrlOption = DEFAULT_URL,
    cluster: ClusterOption = False,
    sentinel: SentinelOption = None,
    layout: LayoutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write an export's keys back, for the same tenant or another.

    The whole file is judged before the first key is written. Keys that exist are left as they are, and
    the exit status is then 1.
    """
    piped = str(source) == "-"
    if piped and replace and not (yes or dry_run):
        raise typer.BadParameter(
            "stdin is the export and nobody can answer: add --yes", param_hint="--replace"
        )
    with _operations(layout) as operations:
        owner, server = None if tenant is None else ensure_tenant_id(tenant), Server(url, cluster, sentinel)
        whose = f"of {owner!r}" if owner else "of the tenant that was exported"
        confirm(f"Overwrite keys {whose} in {server}?", yes=yes or dry_run or not replace)
        where = sys.stdin.buffer if piped else source
        with server.connected() as client, _watched("Writing", None) as tell:
            report = operations.import_(
                client, where, tenant_id=owner, replace=replace, dry_run=dry_run, on_progress=tell
            )
        if as_json:
            _print_report("import", report, tenant=owner, file=str(source))
        else:
            did = "would write" if dry_run else "wrote"
            typer.echo(f"{source}: {did} {_keys(report.keys)} ({_size(report.bytes)} of values)")
        if report.skipped:
            say(f"Left as they are because they exist: {_keys(report.skipped)}. --replace overwrites them.")
            finish(Status.LEFT)


@tenants_app.command()
def audit(
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import", "-i", metavar="MODULE", help="Import a module that declares shared keys; repeatable."
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    cluster: ClusterOption = False,
    sentinel: SentinelOption = None,
    layout: LayoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys that belong to nobody: no tenant's prefix, and no declared shared key.

    Name the modules that declare shared keys with --import. A key a line; with --json an object a line,
    and the report last. Exit status 1 if there are any.
    """
    with _operations(layout, modules or ()) as operations:
        last: list[AuditReport] = []
        with Server(url, cluster, sentinel).connected() as client, _watched("Looking", client) as tell:

            def note(report: AuditReport) -> None:
                last[:] = [report]
                tell(report)

            for key in operations.audit(client, on_progress=note):
                print_json(_json_key(key)) if as_json else _print_key(key)
        (report,) = last
        if as_json:
            _print_report("audit", report)
        else:
            say(f"{_keys(report.keys)} of nobody among {report.scanned:,}")
        if report.keys:
            finish(Status.LEFT)


# --- what they share ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where the keys are, and how to get there.

    Raises:
        typer.BadParameter: The URL is none, or not one that names its server beyond doubt.
    """

    url: str
    cluster: bool = False
    sentinel: str | None = None

    def __post_init__(self) -> None:
        if self.cluster and self.sentinel:
            raise typer.BadParameter("a cluster has no sentinel", param_hint="--sentinel")
        wrong = _wrong_with(self.url, by_host=self.cluster or self.sentinel is not None)
        if wrong:
            raise _bad_url(wrong)
        try:
            pool = self._lazy_client().connection_pool
            if not self.cluster:  # whose client has options of its own, and passes over the rest
                # Connects to nothing, and takes no option that it does not know.
                pool.connection_class(**pool.connection_kwargs)
        except ValueError as error:
            raise _bad_url(str(error)) from error
        except TypeError as error:
            raise _bad_url("it has an option that redis-py does not take") from error

    def __str__(self) -> str:
        """Where, without the password."""
        parts = urlsplit(self.url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        return f"the primary of {self.sentinel!r} at {shown}" if self.sentinel else shown

    @contextlib.contextmanager
    def connected(self) -> Iterator[Client]:
        """Yield a client, and close it afterwards."""
        client = self._client()
        try:
            yield client
        finally:
            client.close()

    def _client(self) -> Client:
        import redis

        return redis.RedisCluster.from_url(self.url) if self.cluster else self._lazy_client()

    def _lazy_client(self) -> redis.Redis:
        import redis
        from redis.connection import parse_url
        from redis.sentinel import Sentinel

        if not self.sentinel:
            return redis.Redis.from_url(self.url)
        options: dict[str, Any] = parse_url(self.url)  # type: ignore[no-untyped-call]
        where = (options.pop("host", "127.0.0.1"), options.pop("port", 26379))
        if options.pop("connection_class", None):
            options["ssl"] = True
        # The sentinel is spoken to as the primary is, but for its password and database.
        asked = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl"))}
        known = Sentinel([where], sentinel_kwargs=asked, **options)  # type: ignore[no-untyped-call]
        primary: redis.Redis = known.master_for(self.sentinel)  # type: ignore[no-untyped-call]
        return primary


_NAMES_A_SERVER: Final = re.compile(r"/?[0-9]*")


def _wrong_with(url: str, *, by_host: bool) -> str | None:
    """Return what is wrong with a URL, without a part of it: what looks like a path may be a password.

    redis-py would connect to a server of its own choice where it finds none in the URL.
    """
    escape = "in a user name or a password write / # ? @ : as %2F %23 %3F %40 %3A"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return f"it cannot be read; {escape}"
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "its scheme is none of redis://, rediss:// and unix://"
    if parts.fragment or (parts.netloc and not host and parts.scheme != "unix"):
        return f"it names no host; {escape}"
    if parts.scheme == "unix":
        return "a socket is no way to it; name a host" if by_host else None
    return None if _NAMES_A_SERVER.fullmatch(parts.path) else f"its path is no number of a database; {escape}"


def _bad_url(why: str) -> typer.BadParameter:
    return typer.BadParameter(why, param_hint="--url")


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except (TenancyError, ImportError):
        raise
    except Exception as error:
        raise RuntimeError(f"--import {module}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _operations(layout: Layout | None, modules: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the operations, in the layout wanted, with every failure turned into an exit status."""
    with outcome():
        from tenantry.integrations.redis import tenants  # without redis-py this names the extra

        from redis.exceptions import RedisClusterException, RedisError  # isort: skip

        with outcome(RedisError, RedisClusterException):
            sys.path.insert(0, str(Path.cwd()))
            for module in modules:
                _import(module)
            if layout is not None:
                use_layout(layout.value)
            yield tenants


@contextlib.contextmanager
def _watched(label: str, client: Client | None) -> Iterator[Callable[[Report], None]]:
    """Yield a callback that moves the bar by a page of keys."""

    def total() -> int | None:
        if client is None or tenant_prefix("a").startswith("{"):
            return None
        return int(client.dbsize())

    with progress(label, total) as step:
        yield lambda report: step.advance(1000, _note(report))


def _note(report: Report) -> str:
    again = f", pass {report.passes}" if report.passes > 1 else ""
    return f"{report.keys:,}{again}"


def _print_report(operation: str, report: Report, **more: str | None) -> None:
    print_json({"operation": operation, **more, **dataclasses.asdict(report)})


def _print_key(key: bytes) -> None:
    """Write one key on one line: what is no printable text with escapes."""
    text = key.decode("utf-8", "backslashreplace")
    typer.echo(text if text.isprintable() else text.encode("unicode_escape").decode("ascii"))


def _json_key(key: bytes) -> dict[str, str]:
    try:
        return {"key": key.decode("utf-8")}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key).decode("ascii")}


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count:,} keys"


def _passes(count: int) -> str:
    return "1 pass" if count == 1 else f"{count} passes"


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
