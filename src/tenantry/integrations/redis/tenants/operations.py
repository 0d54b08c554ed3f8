"""The five operations on a tenant's keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ResponseError

from tenantry.ids import ensure_tenant_id
from tenantry.integrations.redis.tenants import exportfile
from tenantry.integrations.redis.tenants.exportfile import Entry, ExportFileError, Source, Target
from tenantry.integrations.redis.tenants.reports import (
    AuditReport,
    ExportReport,
    ImportReport,
    Progress,
    PurgeReport,
    UsageReport,
)
from tenantry.integrations.redis.tenants.store import (
    ELSEWHERE,
    PAGE,
    Command,
    Node,
    Store,
    next_page,
    open_store,
    scan_command,
    settled,
    slots_moved,
    unmoved,
)
from tenantry.keys import is_shared_key, owner_of, tenant_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from redis import Redis, RedisCluster

__all__ = ["audit", "export", "import_", "purge", "usage"]

# What one write may carry of values, beside the one value that is larger than that.
_BATCH_BYTES = 8 << 20
_BATCH_KEYS = 500

T = TypeVar("T")


def _silent(report: object) -> None:
    """Take a report and do nothing with it."""


def _prefix_of(tenant_id: str) -> bytes:
    return tenant_prefix(ensure_tenant_id(tenant_id)).encode("ascii")


# --- usage --------------------------------------------------------------------------------------


def usage(
    client: Redis | RedisCluster,
    tenant_id: str,
    *,
    dry_run: bool = False,
    on_progress: Progress[UsageReport] = None,
) -> UsageReport:
    """Count a tenant's keys and the memory that they take.

    Args:
        client: A synchronous redis-py client, guarded or not.
        tenant_id: The tenant.
        dry_run: Accepted for symmetry and noted in the report: counting changes nothing.
        on_progress: Called with the report so far after every page of keys; what it raises ends
            the run.

    Returns:
        Keys, bytes (``MEMORY USAGE``, an estimate for large collections) and keys by type.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is not a tenant id; the server was not asked.
        TypeError: ``client`` is asynchronous, a pipeline, or no redis-py client.
        ValueError: ``client`` speaks to one node of a cluster as if it stood alone.
        RuntimeError: Slots of the cluster moved meanwhile.
        redis.RedisError, RedisClusterException: What a server or a connection says.
    """
    prefix = _prefix_of(tenant_id)
    store = open_store(client)
    tell = on_progress or _silent
    types: Counter[str] = Counter()
    report = UsageReport(passes=1, dry_run=dry_run)
    with unmoved(store):
        for node in store.nodes(prefix):
            for keys in node.pages(prefix):
                kinds, sizes = _types(node, keys), _sizes(node, keys)
                here = [kind for kind in kinds if kind != "none"]  # the others are gone by now
                types.update(here)
                report = changed(
                    report,
                    keys=report.keys + len(here),
                    bytes=report.bytes + sum(sizes),
                    by_type=dict(types),
                )
                tell(report)
    return report


def _types(node: Node, keys: Sequence[bytes]) -> list[str]:
    replies = settled(node.run([(b"TYPE", key) for key in keys]))
    return [bytes(reply).decode("ascii") for reply in replies]


def _size_commands(keys: Iterable[bytes]) -> list[Command]:
    return [(b"MEMORY", b"USAGE", key) for key in keys]


def _sizes(node: Node, keys: Sequence[bytes]) -> list[int]:
    return [_size(reply) for reply in node.run(_size_commands(keys))]


def _size(reply: object) -> int:
    """Return the bytes that a reply to ``MEMORY USAGE`` tells; 0 for a key that is gone.

    Also 0 where the command is missing or not permitted: the size is information, and no reason to
    leave a tenant's keys where they are.
    """
    return reply if isinstance(reply, int) else 0


# --- purge --------------------------------------------------------------------------------------


def purge(
    client: Redis | RedisCluster,
    tenant_id: str,
    *,
    dry_run: bool = False,
    max_passes: int = 10,
    on_progress: Progress[PurgeReport] = None,
) -> PurgeReport:
    """Remove every key of a tenant.

    One pass over the keys may miss what is written while it runs, so passes go on until one finds
    nothing. Shared keys are never touched.

    Args:
        client: A synchronous redis-py client, guarded or not.
        tenant_id: The tenant.
        dry_run: Count what would be removed, in one pass, and remove nothing.
        max_passes: When to give up against somebody who goes on writing.
        on_progress: Called with the report so far after every page of keys; what it raises ends
            the run.

    Returns:
        ``keys`` and ``bytes`` removed, as far as the server's replies arrived; ``remaining`` is
        what the last pass found: 0 is the proof that nothing is left, more means that
        ``max_passes`` passes were not enough: stop the writer and purge again.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is not a tenant id; the server was not asked.
        TypeError: ``client`` is asynchronous, a pipeline, or no redis-py client.
        ValueError: ``max_passes`` is less than 1, or ``client`` speaks to one node of a cluster as
            if it stood alone.
        RuntimeError: Slots of the cluster moved during every pass that found nothing.
        redis.RedisError, RedisClusterException: What a server or a connection says.
    """
    prefix = _prefix_of(tenant_id)
    if max_passes < 1:
        raise ValueError(f"max_passes is at least 1, not {max_passes}")
    store = open_store(client)
    report, where, moved = PurgeReport(dry_run=dry_run), store.refresh(), False
    while report.passes < (1 if dry_run else max_passes):
        report = changed(report, passes=report.passes + 1, remaining=0)
        together = store.together(prefix)
        for node in store.nodes(prefix):
            with node.holding():
                report = _sweep(node, prefix, report, on_progress or _silent, together=together)
        before, where = where, store.refresh()
        moved = where != before
        if not report.remaining and not moved:
            break
    if moved and (dry_run or not report.remaining):
        raise slots_moved()  # what was seen is no proof
    return report


def _sweep(
    node: Node,
    prefix: bytes,
    report: PurgeReport,
    tell: Callable[[PurgeReport], object],
    *,
    together: bool,
) -> PurgeReport:
    for found, size, freed in _removed(node, prefix, together=together, dry=report.dry_run):
        report = changed(
            report,
            keys=report.keys + (found if report.dry_run else freed),
            bytes=report.bytes + size,
            remaining=report.remaining + found,
        )
        tell(report)
    return report


def _removed(node: Node, prefix: bytes, *, together: bool, dry: bool) -> Iterator[tuple[int, int, int]]:
    """Yield for every page how many keys it held, their bytes, and how many were removed.

    A page is removed in the write that asks for the next one: a round trip a page, not three.
    """
    page: list[bytes] = []
    cursor: bytes | None = b"0"
    while page or cursor is not None:
        sizes = _size_commands(page)
        removals = [] if dry else _unlinks(page, together=together)
        scan = [] if cursor is None else [scan_command(cursor, prefix)]
        replies = node.run([*sizes, *removals, *scan])
        size, freed = replies[: len(sizes)], replies[len(sizes) : len(sizes) + len(removals)]
        yield len(page), sum(map(_size, size)), _freed(freed)
        cursor, page = next_page(replies[-1], prefix) if scan else (None, [])


def _unlinks(keys: Sequence[bytes], *, together: bool) -> list[Command]:
    if not together:
        return [(b"UNLINK", key) for key in keys]
    return [(b"UNLINK", *keys[first : first + PAGE]) for first in range(0, len(keys), PAGE)]


def _freed(replies: Sequence[Any]) -> int:
    """Return how many keys went; one that has moved to another node is the next pass's."""
    return sum(settled([reply for reply in replies if not isinstance(reply, ELSEWHERE)]))


# --- export -------------------------------------------------------------------------------------


def export(
    client: Redis | RedisCluster,
    tenant_id: str,
    target: Target,
    *,
    dry_run: bool = False,
    on_progress: Progress[ExportReport] = None,
) -> ExportReport:
    """Copy every key of a tenant into a file: JSON lines with each value as ``DUMP`` gives it.

    The lines are described in :mod:`tenantry.integrations.redis.tenants.exportfile`. Values are in
    the server's own format: a server reads what it or an older one has written. Times to live
    stand as they were at the moment of the export and start again at the import.

    Args:
        client: A synchronous redis-py client, guarded or not.
        tenant_id: The tenant.
        target: A path, or a file object open for writing, text or binary. A path appears only when
            the file is whole (``<name>.partial`` before that), replaces a file of that name, and
            only its owner may read it.
        dry_run: Count, and write nothing.
        on_progress: Called with the report so far after every page of keys; what it raises ends
            the run.

    Returns:
        Keys written and the bytes of their values.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is not a tenant id; the server was not asked.
        TypeError: ``client`` is asynchronous, a pipeline, or no redis-py client.
        ValueError: ``client`` speaks to one node of a cluster as if it stood alone.
        RuntimeError: Slots of the cluster moved meanwhile: keys may be missing, export again.
        OSError: The file cannot be written.
        redis.RedisError, RedisClusterException: What a server or a connection says.
    """
    prefix = _prefix_of(tenant_id)
    store = open_store(client)
    tell = on_progress or _silent
    if dry_run:
        return _exported(store, prefix, _silent, ExportReport(passes=1, dry_run=True), tell)
    with exportfile.written(target) as file:
        writer = exportfile.Writer(file)
        writer.header(ensure_tenant_id(tenant_id), prefix)
        report = _exported(store, prefix, writer.entry, ExportReport(passes=1), tell)
        writer.trailer()
    return report


def _exported(
    store: Store,
    prefix: bytes,
    write: Callable[[Entry], object],
    report: ExportReport,
    tell: Callable[[ExportReport], object],
) -> ExportReport:
    with unmoved(store):
        for node in store.nodes(prefix):
            for keys in node.pages(prefix):
                for entry in _entries(node, keys):
                    write(entry)
                    size = report.bytes + len(entry.dump)
                    report = changed(report, keys=report.keys + 1, bytes=size)
                tell(report)
    return report


def _entries(node: Node, keys: Sequence[bytes]) -> Iterator[Entry]:
    for some in _batches(zip(keys, _sizes(node, keys), strict=True), _second):
        words = [(name, key) for key, _ in some for name in (b"TYPE", b"PTTL", b"DUMP")]
        replies = iter(settled(node.run(words)))
        for key, _ in some:
            kind, pttl, dump = next(replies), next(replies), next(replies)
            if dump is not None:  # else it has gone meanwhile
                yield Entry(key, bytes(kind).decode("ascii"), max(pttl, -1), bytes(dump))


def _second(pair: tuple[bytes, int]) -> int:
    return pair[1]


def _batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield ``items`` in lists that end where keys or bytes become too many for one write."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += size(item)
        if held >= _BATCH_BYTES or len(batch) >= _BATCH_KEYS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


# --- import -------------------------------------------------------------------------------------


def import_(
    client: Redis | RedisCluster,
    source: Source,
    *,
    tenant_id: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
    on_progress: Progress[ImportReport] = None,
) -> ImportReport:
    """Write an export's keys back, for the same tenant or another.

    The whole file is read and judged before the first key is written; a file object is copied to a
    temporary file for that. Keys get the prefix of the tenant and of the key layout in use now;
    values are written as they are, so an id of the old tenant inside a value stays.

    Args:
        client: A synchronous redis-py client, guarded or not.
        source: A path, or a file object open for reading, text or binary.
        tenant_id: Whose the keys shall be; ``None``: of the tenant that was exported.
        replace: Overwrite keys that exist. Without it they are left as they are and counted as
            ``skipped``, so that a run that was killed can be run again.
        dry_run: Judge the file and count, and write nothing.
        on_progress: Called with the report so far after every batch of keys; what it raises ends
            the run.

    Returns:
        Keys written, the bytes of their values, and how many were skipped.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is not a tenant id; nothing was read.
        ExportFileError: The file is cut, changed, no export, or holds a key of another tenant than
            it names: nothing was written. Or the server refuses a value: what came before it in
            the file may be written.
        TypeError: ``client`` is asynchronous, a pipeline, or no redis-py client.
        ValueError: ``client`` speaks to one node of a cluster as if it stood alone.
        OSError: The file cannot be read.
        redis.RedisError, RedisClusterException: What a server or a connection says.
    """
    wanted = None if tenant_id is None else _prefix_of(tenant_id)
    store = open_store(client)
    with exportfile.opened(source) as file:
        owner, old, entries = exportfile.read(file)
        for _ in entries:
            """Judge them all before the first is written."""
        file.seek(0)
        _, _, entries = exportfile.read(file)
        new = wanted or _prefix_of(owner)
        moved = (changed(entry, key=new + entry.key[len(old) :]) for entry in entries)
        store.refresh()
        writes = _Writes(store, replace=replace, dry_run=dry_run)
        report = ImportReport(passes=1, dry_run=dry_run)
        for some in _batches(moved, _dumped):
            report = _counted(report, some, writes.run(some))
            (on_progress or _silent)(report)
    return report


def _dumped(entry: Entry) -> int:
    return len(entry.dump)


def _counted(report: ImportReport, some: Sequence[Entry], written: Sequence[bool]) -> ImportReport:
    sizes = [len(entry.dump) for entry, done in zip(some, written, strict=True) if done]
    return changed(
        report,
        keys=report.keys + len(sizes),
        bytes=report.bytes + sum(sizes),
        skipped=report.skipped + len(some) - len(sizes),
    )


class _Writes:
    """Writes entries to the nodes that they belong to, or finds out whether it could."""

    _TRIES = 3

    def __init__(self, store: Store, *, replace: bool, dry_run: bool) -> None:
        self._store = store
        self._replace = replace
        self._dry_run = dry_run

    def run(self, entries: Sequence[Entry]) -> list[bool]:
        """Return for every entry whether it was written (would be, in a dry run)."""
        done: dict[int, bool] = {}
        for _ in range(self._TRIES):
            left = [entry for entry in entries if entry.line not in done]
            for some in self._by_node(left):
                done.update(self._judged(some))
            if len(done) == len(entries):
                return [done[entry.line] for entry in entries]
            self._store.refresh()
        raise RuntimeError("slots of the cluster keep moving: wait until it is stable and import again")

    def _by_node(self, entries: Sequence[Entry]) -> Iterable[list[tuple[Node, Entry]]]:
        groups: dict[object, list[tuple[Node, Entry]]] = {}
        for entry in entries:
            node = self._store.node_of(entry.key)
            groups.setdefault(node.identity, []).append((node, entry))
        return groups.values()

    def _judged(self, some: Sequence[tuple[Node, Entry]]) -> Iterator[tuple[int, bool]]:
        # Not again after a lost connection: a key that the first try has written would exist.
        replies = some[0][0].run([self._command(entry) for _, entry in some], again=False)
        for (_, entry), reply in zip(some, replies, strict=True):
            if not isinstance(reply, ELSEWHERE):
                yield entry.line, self._verdict(entry, reply)

    def _command(self, entry: Entry) -> Command:
        if self._dry_run:
            return (b"EXISTS", entry.key)
        # 0 stands for "for ever"; a key in its last millisecond gets that millisecond.
        pttl = 0 if entry.pttl < 0 else max(entry.pttl, 1)
        command = (b"RESTORE", entry.key, b"%d" % pttl, entry.dump)
        return (*command, b"REPLACE") if self._replace else command

    def _verdict(self, entry: Entry, reply: Any) -> bool:
        if self._dry_run:
            return self._replace or not settled([reply])[0]
        if isinstance(reply, ResponseError):
            if str(reply).startswith("BUSYKEY"):
                return False
            raise ExportFileError(entry.line, f"the server refuses the value: {reply}") from reply
        return True


# --- audit --------------------------------------------------------------------------------------


def audit(
    client: Redis | RedisCluster,
    *,
    dry_run: bool = False,
    on_progress: Progress[AuditReport] = None,
) -> Iterator[bytes | str]:
    """Find the keys that belong to nobody: no tenant's prefix, and no declared shared key.

    Import the modules that declare your shared keys first, else theirs are found as well. A key may
    be named twice when the server resizes its tables meanwhile.

    Args:
        client: A synchronous redis-py client, guarded or not.
        dry_run: Accepted for symmetry and noted in the report: looking changes nothing.
        on_progress: Called with the report so far after every page of keys; what it raises ends
            the run.

    Returns:
        Iterator of keys, ``str`` where the client decodes responses and the key is text, else
        ``bytes``.

    Raises:
        TypeError: ``client`` is asynchronous, a pipeline, or no redis-py client; at once.
        ValueError: ``client`` speaks to one node of a cluster as if it stood alone; at once.
        RuntimeError: Slots of the cluster moved meanwhile: keys may be missing; at the end of the
            iterator.
        redis.RedisError, RedisClusterException: What a server or a connection says, from the
            iterator.
    """
    store = open_store(client)
    encoder = client.get_encoder()
    encoding = encoder.encoding if encoder.decode_responses else None
    report = AuditReport(passes=1, dry_run=dry_run)
    return _orphans(store, encoding, report, on_progress or _silent)


def _orphans(
    store: Store,
    encoding: str | None,
    report: AuditReport,
    tell: Callable[[AuditReport], object],
) -> Iterator[bytes | str]:
    with unmoved(store):
        for node in store.nodes(None):
            for keys in node.pages(None):
                orphans = [key for key in keys if owner_of(key) is None and not is_shared_key(key)]
                report = changed(report, keys=report.keys + len(orphans), scanned=report.scanned + len(keys))
                tell(report)
                yield from (_as_client(key, encoding) for key in orphans)


def _as_client(key: bytes, encoding: str | None) -> bytes | str:
    try:
        return key if encoding is None else key.decode(encoding)
    except UnicodeDecodeError:
        return key
