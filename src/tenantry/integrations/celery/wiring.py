"""``install`` and ``uninstall``: where the roles of this edge take hold of Celery.

What is replaced on Celery's own classes is replaced once per process and looks, at each call, whether the
application at hand is installed; on any other it calls what it replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Final

from celery import Celery
from celery.app.task import Task
from celery.canvas import _chain, _chord, group

from tenantry.integrations.celery import beat, logs, publish, receive, run
from tenantry.integrations.celery.edge import Edge, edge_of, forget, real, remember
from tenantry.integrations.celery.needs import tenancy_of
from tenantry.propagation import normalize_secret_keys

_lock: Final = threading.RLock()


def install(
    app: Any,
    *,
    secret_keys: Any = None,
    accept_unsigned_until: datetime | None = None,
    quarantine: str = "tenantry.quarantine",
    quarantine_alarm: int = 10_000,
) -> None:
    """Let every task message of ``app`` carry its tenant, and every task run under it or not at all.

    Call it where the app is made, so that publishers, workers and beat all do. It works before and after
    tasks are declared and the app is finalised; calling it again sets the options anew. Other apps in the
    process are untouched. A task says what it needs: ``@app.task(tenancy="required")`` (the default),
    ``"optional"`` or ``"none"``.

    Args:
        app: The Celery application.
        secret_keys: Sign headers: ``str``, ``bytes`` or a sequence of them, oldest first; the newest signs
            and all are accepted. Keep an old one for as long as the longest ETA. Default: not signed.
        accept_unsigned_until: An aware time until which unsigned headers pass, counted and logged, so that
            signing can be switched on while messages are in flight. Default: none pass.
        quarantine: Name of the queue, on the app's broker, where messages that may not run are kept.
        quarantine_alarm: Number of messages in that queue from which every refusal logs CRITICAL.

    Raises:
        TypeError: ``app`` is no Celery application, or an option has a wrong type.
        ValueError: ``secret_keys`` is empty, ``accept_unsigned_until`` is naive, ``quarantine`` is blank,
            ``quarantine_alarm`` is below 1, or a task that is registered already declares a tenancy that
            there is not.
        ImportError: ``secret_keys`` are set and itsdangerous is not installed.

    Thread-safe. Touches no connection.
    """
    app = real(app)
    if not isinstance(app, Celery):
        raise TypeError(f"install(app) takes a Celery application, not {type(app).__name__}")
    edge = Edge(
        secret_keys=normalize_secret_keys(secret_keys),
        accept_unsigned_until=_aware(accept_unsigned_until),
        quarantine=_queue_name(quarantine),
        quarantine_alarm=_depth(quarantine_alarm),
    )
    for task in app._tasks.values():
        tenancy_of(task)
    with _lock:
        _patch_celery()
        _install(app, edge)


def uninstall(app: Any) -> None:
    """Give ``app`` back as it was. Does nothing on an app that tenantry is not installed on.

    Workers that run keep what they have built from it: stop them first.

    Raises:
        TypeError: ``app`` is no Celery application.
    """
    if not isinstance(app, Celery):
        raise TypeError(f"uninstall(app) takes a Celery application, not {type(app).__name__}")
    with _lock:
        if edge_of(app) is None:
            return
        before = app.send_task._tenantry_before
        if before is None:
            del app.send_task
        else:
            app.send_task = before
        for task in app._tasks.values():
            run.unbind_bodies(type(task))
        app.fixups = {fixup for fixup in app.fixups if not isinstance(fixup, Spawned)}
        forget(app)


def _install(app: Any, edge: Edge) -> None:
    if edge_of(app) is None:
        app.send_task = publish.send_task_of(app)
    remember(app, edge)
    # A pool process that is spawned receives the app by pickle: attributes stay behind, fixups travel.
    app.fixups = {fixup for fixup in app.fixups if not isinstance(fixup, Spawned)} | {Spawned(edge)}
    for task in app._tasks.values():
        run.bind_bodies(type(task))


class Spawned:
    """A fixup that installs the edge on an unpickled copy of the application, with the same options."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def __call__(self, app: Any) -> None:
        with _lock:
            _patch_celery()
            _install(app, self._edge)


def _aware(value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"accept_unsigned_until is a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ValueError("accept_unsigned_until has no time zone, so every worker would read it differently")
    return value


def _queue_name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"quarantine is the name of a queue, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("quarantine is blank: refused messages need a queue to be kept in")
    return value


def _depth(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"quarantine_alarm is a number of messages, not {type(value).__name__}")
    if value < 1:
        raise ValueError("quarantine_alarm is below 1; a depth counts the new message")
    return int(value)


# --- Celery's own classes, once per process ------------------------------------------------------


def _patch_celery() -> None:
    if isinstance(vars(Task).get("__trace__"), run.Traced):
        return
    beat.connect()
    logs.connect()
    _replace(Task, "start_strategy", receive.guarded_start)
    _replace(Task, "apply", publish.checked_apply)
    _replace(Task, "replace", publish.under_own_tenant)
    _replace(Task, "add_to_chord", publish.under_own_tenant)
    for canvas, methods in (
        (group, ("apply_async", "apply")),
        (_chain, ("run", "apply")),
        (_chord, ("apply_async", "apply")),
    ):
        for method in methods:
            _replace(canvas, method, publish.checked_canvas)
    _replace(_chord, "run", publish.checked_chord)
    Task.bind = classmethod(_binding(Task.bind.__func__))
    Task.__trace__ = run.Traced()


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def _binding(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Task.bind``, which Celery calls for each task class of an app before it builds its tracer."""

    @wraps(original)
    def bind(cls: Any, app: Any) -> Any:
        if edge_of(app) is not None:
            tenancy_of(cls)
        bound = original(cls, app)
        if edge_of(app) is not None:
            run.bind_bodies(cls)
        return bound

    return bind
