"""The application that real workers run in these tests; everything about it comes from the environment.

Each phase of a task notes under which tenant it ran: ``RPUSH <task id> <phase>=<tenant>`` in a Redis of the test,
or, where there are too many for that, a line ``<task id> <phase> <tenant>`` in the file ``PROBE_NOTES_FILE``.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial

if "ddtrace" in os.environ.get("PROBE_BESIDE", ""):
    os.environ["DD_TRACE_ENABLED"] = os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "true"
    import ddtrace

    ddtrace.patch(celery=True)

import redis
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from celery.worker.request import Request
from celery.worker.strategy import default

from tenantry import add_scope_hook, bind_tenant, current_tenant_or_none, tenant_scope
from tenantry.integrations.celery import install, refuse

_env = os.environ.get
if "sentry" in _env("PROBE_BESIDE", ""):
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1", traces_sample_rate=1.0, integrations=[CeleryIntegration()],
        before_send=lambda *_: None, before_send_transaction=lambda *_: None, default_integrations=False,
    )  # fmt: skip
if "otel" in _env("PROBE_BESIDE", ""):
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import set_tracer_provider

    set_tracer_provider(TracerProvider())
    CeleryInstrumentor().instrument()
notes = redis.Redis.from_url(
    _env("PROBE_NOTES", "redis://127.0.0.1:1/0"), decode_responses=True, socket_timeout=None
)
log = get_task_logger(__name__)
notes_file = os.open(_env("PROBE_NOTES_FILE", os.devnull), os.O_WRONLY | os.O_APPEND)
mine: ContextVar[str] = ContextVar("mine", default="unset")

app = Celery("probe", broker=_env("PROBE_BROKER"), backend=_env("PROBE_BACKEND"))
app.conf.update(
    task_default_queue=_env("PROBE_QUEUE", "probe"),
    task_protocol=int(_env("PROBE_PROTOCOL", "2")),
    worker_proc_alive_timeout=60.0,
    broker_connection_retry_on_startup=True,
    result_chord_retry_interval=0.1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_allow_error_cb_on_chord_header=True,
)
if _env("PROBE_LOG_FORMAT"):
    app.conf.worker_task_log_format = _env("PROBE_LOG_FORMAT")
if _env("PROBE_START_METHOD"):
    app.conf.worker_pool_start_method = _env("PROBE_START_METHOD")
if _env("PROBE_VISIBILITY"):
    # And look for what is due every second; by default kombu looks every hundred.
    app.conf.broker_transport_options = {
        "visibility_timeout": int(_env("PROBE_VISIBILITY")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }

if _env("PROBE_HOLD"):
    # Seconds instead of a minute, so that a test can wait for the end.
    refuse.HOLD_AT_MOST, refuse.PROBE_EVERY = float(_env("PROBE_HOLD")), 0.5

_until = _env("PROBE_UNSIGNED_UNTIL")
if _env("PROBE_BARE") is None:
    install(
        app,
        secret_keys=_env("PROBE_SECRETS").split(",") if _env("PROBE_SECRETS") else None,
        accept_unsigned_until=datetime.fromisoformat(_until) if _until else None,
        quarantine=_env("PROBE_QUARANTINE", "probe.quarantine"),
        quarantine_alarm=int(_env("PROBE_ALARM", "10000")),
    )


def note(task_id: str, phase: str) -> None:
    """Write down under which tenant a phase runs."""
    tenant = current_tenant_or_none() or "-"
    if "PROBE_NOTES_FILE" in os.environ:
        os.write(notes_file, f"{task_id} {phase} {tenant}\n".encode())
    else:
        notes.rpush(f"phases:{task_id}", f"{phase}={tenant}")


def _signal(name: str) -> None:
    def receive(sender=None, task_id=None, request=None, **_):
        identity = task_id or getattr(request, "id", None) or sender.request.id
        note(identity, f"signal:{name}")

    getattr(signals, name).connect(receive, weak=False)


for _name in (
    "task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_revoked",
):  # fmt: skip
    _signal(_name)


# Not shared: a test process makes several applications of these functions.
task = partial(app.task, shared=False)


class Noting(app.Task):
    """Notes every hook."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        note(task_id, "before_start")

    def on_success(self, retval, task_id, args, kwargs):
        note(task_id, "on_success")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_failure")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_retry")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(task_id, "after_return")


@task(bind=True, base=Noting)
def tell(self, *_):
    """Returns its tenant."""
    note(self.request.id, "body")
    return current_tenant_or_none()


@task(bind=True, base=Noting, tenancy="none")
def untold(self, *_):
    """Returns its tenant, which is none."""
    note(self.request.id, "body")
    return current_tenant_or_none()


@task(bind=True, base=Noting, tenancy="optional")
def maybe(self, *_):
    """Returns its tenant, if there is one."""
    note(self.request.id, "body")
    return current_tenant_or_none()


@task(bind=True)
def plus(self, *numbers):
    """Adds up whatever it is given."""
    note(self.request.id, "body")
    return sum(numbers[0]) if numbers and isinstance(numbers[0], list) else sum(numbers)


@task(bind=True, base=Noting)
def leave_open(self, *_):
    """Binds a tenant by force and never takes it back."""
    note(self.request.id, "body")
    tenant_scope("globex", switch=True).__enter__()
    mine.set("kept")
    return current_tenant_or_none()


@task(bind=True, base=Noting, tenancy="none")
def leave_open_untold(self, *_):
    """The same in a task that declares none."""
    bind_tenant("globex")


@task(bind=True, base=Noting, default_retry_delay=0, max_retries=2)
def try_again(self, how="raise", times=1):
    """Retries under another tenant than its own."""
    note(self.request.id, f"body{self.request.retries}")
    if self.request.retries < times:
        with tenant_scope("globex", switch=True):
            raise self.retry(countdown=0)
    return current_tenant_or_none()


@task(bind=True, base=Noting, tenancy="optional", default_retry_delay=0, max_retries=2)
def try_again_maybe(self):
    """Retries under a tenant although it has none."""
    note(self.request.id, f"body{self.request.retries}")
    if self.request.retries < 1:
        with tenant_scope("globex"):
            raise self.retry(countdown=0)
    return current_tenant_or_none()


@task(
    bind=True,
    base=Noting,
    autoretry_for=(ZeroDivisionError,),
    retry_kwargs={"max_retries": 1, "countdown": 0},
)
def try_again_by_itself(self):
    """Is retried by Celery."""
    note(self.request.id, f"body{self.request.retries}")
    if self.request.retries == 0:
        tenant_scope("globex", switch=True).__enter__()
        raise ZeroDivisionError
    return current_tenant_or_none()


@task(bind=True, base=Noting)
def give_way(self, shape="single"):
    """Replaces itself while another tenant is active."""
    note(self.request.id, "body")
    with tenant_scope("globex", switch=True):
        if shape == "chain":
            raise self.replace(tell.si() | tell.si())
        if shape == "group":
            from celery import group

            raise self.replace(group(tell.si(), tell.si()))
        raise self.replace(tell.si())


@task(bind=True, base=Noting)
def join_in(self):
    """Adds a member to its own chord while another tenant is active."""
    note(self.request.id, "body")
    with tenant_scope("globex", switch=True):
        self.add_to_chord(tell.si())
    return current_tenant_or_none()


@task(bind=True, base=Noting)
def start_child(self):
    """Publishes another task."""
    note(self.request.id, "body")
    return tell.delay().id


@task(bind=True, base=Noting)
def fail(self, *_):
    """Fails."""
    note(self.request.id, "body")
    raise ValueError("as asked")


@task(bind=True, base=Noting, tenancy="none")
def fail_untold(self, *_):
    """Fails, and declares none."""
    note(self.request.id, "body")
    raise ValueError("as asked")


@task(bind=True, base=Noting)
def ignore(self):
    """Ends by Ignore."""
    note(self.request.id, "body")
    raise Ignore


@task(bind=True, base=Noting, acks_late=True)
def reject(self):
    """Ends by Reject."""
    note(self.request.id, "body")
    raise Reject("as asked", requeue=False)


@task(bind=True, base=Noting)
def exit_now(self, code=0):
    """Ends by SystemExit."""
    note(self.request.id, "body")
    raise SystemExit(code)


@task(bind=True, base=Noting)
def die(self):
    """Ends its process."""
    note(self.request.id, "body")
    os._exit(1)


@task(bind=True, base=Noting, acks_late=True, reject_on_worker_lost=True)
def die_once(self):
    """Ends its process the first time."""
    note(self.request.id, "body")
    if notes.incr(f"died:{self.request.id}") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_tenant_or_none()


@task(bind=True, base=Noting, time_limit=1)
def too_long(self):
    """Runs into its hard limit."""
    note(self.request.id, "body")
    time.sleep(60)


@task(bind=True, base=Noting, soft_time_limit=1)
def long(self):
    """Runs into its soft limit."""
    note(self.request.id, "body")
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        note(self.request.id, "soft")
        raise


@task(bind=True, base=Noting, acks_late=True)
def wait_for(self, key, seconds=30):
    """Waits until the test says go."""
    note(self.request.id, "body")
    notes.blpop([key], timeout=seconds)
    return current_tenant_or_none()


@task(bind=True)
def errback_by_id(self, failed_id):
    """An old-style errback: published as a task of its own."""
    note(failed_id, "errback_by_id")


@task()
def errback_inline(request, exc, traceback):
    """A new-style errback: called where the task failed."""
    note(request.id, "errback_inline")


@task()
def speak():
    """Writes a line of its own to the log."""
    log.warning("a line of a body")


@task()
def user_variable():
    """Returns the user's own context variable."""
    return mine.get()


class OwnRequest(Request):
    """A request class of the user's own: what it replaces runs bound too."""

    def on_accepted(self, pid, time_accepted):
        note(self.id, "request:on_accepted")
        return super().on_accepted(pid, time_accepted)


def own_strategy(task, app, consumer, **options):
    """A strategy of the user's own."""
    handle = default(task, app, consumer, **options)

    def handler(message, body, ack, reject, callbacks, **rest):
        note(message.headers.get("id") or body["id"], "strategy")
        return handle(message, body, ack, reject, callbacks, **rest)

    return handler


@task(bind=True, base=Noting, Request=OwnRequest, Strategy=f"{__name__}:own_strategy")
def custom(self):
    """A task with its own Request and Strategy."""
    note(self.request.id, "body")
    return current_tenant_or_none()


class Home(Noting):
    """A home-made base that takes the tenant out of the arguments."""

    abstract = True

    def __call__(self, *args, **kwargs):
        tenant_scope(kwargs.pop("tenant_id"), switch=True).__enter__()
        return super().__call__(*args, **kwargs)


@task(bind=True, base=Home, typing=False)
def home_made(self):
    """A task of that base."""
    note(self.request.id, "inner")
    return current_tenant_or_none()


@task(bind=True, base=Noting)
def set_mine(self):
    """Sets a context variable of the user's own."""
    mine.set("mine")
    return mine.get()


class Watching(Noting):
    """Notes the user's own variable in a later phase."""

    abstract = True

    def on_success(self, retval, task_id, args, kwargs):
        notes.rpush(f"mine:{task_id}", mine.get())


@task(bind=True, base=Watching)
def keep_mine(self):
    """Sets it, for a later phase of the same task to see."""
    tenant_scope("globex", switch=True).__enter__()
    mine.set("kept")


if _env("PROBE_HOOKS"):

    @contextmanager
    def hook(tenant_id):
        """Counts entries of a tenant, and fails for one of them."""
        if tenant_id == "hookless":
            raise RuntimeError("the hook failed")
        notes.incr(f"hook:{_env('PROBE_QUEUE')}:{os.getpid()}:{tenant_id}")
        yield

    if __name__ == "tests.integration.celery.probe" and "PROBE_IN_WORKER" in os.environ:
        add_scope_hook(hook)
