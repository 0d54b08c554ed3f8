"""Installing, on what, when, and giving back."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from unittest.mock import ANY

import pytest
from celery import Celery, Task, chain, chord, current_app, group, shared_task
from celery.app.trace import task_has_custom

from tenantry import NoTenantError, current_tenant_or_none, tenant_scope
from tenantry.integrations.celery import fan_out, install, quarantine, uninstall


@pytest.fixture
def app():
    """A plain application."""
    app = Celery("plain", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    uninstall(app)
    app.close()


def test_install_refuses_what_is_no_application() -> None:
    """And so does uninstall."""
    for function in (install, uninstall):
        with pytest.raises(TypeError, match="Celery application"):
            function(object())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"secret_keys": []}, ValueError),
        ({"secret_keys": ""}, ValueError),
        ({"secret_keys": [b" "]}, ValueError),
        ({"secret_keys": [1]}, TypeError),
        ({"accept_unsigned_until": datetime(2030, 1, 1)}, ValueError),
        ({"accept_unsigned_until": "2030-01-01"}, TypeError),
        ({"quarantine": " "}, ValueError),
        ({"quarantine": None}, TypeError),
        ({"quarantine_alarm": 0}, ValueError),
        ({"quarantine_alarm": True}, TypeError),
        ({"quarantine_alarm": "10"}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_install_refuses_bad_options(app, options, error) -> None:
    """Before anything is installed."""
    with pytest.raises(error):
        install(app, **options)
    assert "send_task" not in vars(app)


@pytest.mark.parametrize("value", ["Required", "", None, True, 1, ["none"], ANY])
def test_unknown_tenancy_is_refused_when_registered_and_when_published(app, value) -> None:
    """A typo must not mean anything."""
    install(app)

    with pytest.raises(ValueError, match="tenancy="):

        @app.task(name="typo", tenancy=value, lazy=False, shared=False)
        def typo():
            """Misspelt."""

    with tenant_scope("acme"), pytest.raises(ValueError, match="tenancy="):
        app.send_task("typo")


def test_unknown_tenancy_is_refused_at_install(app) -> None:
    """Where the task was there first."""

    @app.task(name="typo", tenancy="nope", lazy=False, shared=False)
    def typo():
        """Misspelt."""

    with pytest.raises(ValueError, match="typo"):
        install(app)


def test_lazy_task_with_unknown_tenancy_is_refused_when_evaluated(app) -> None:
    """Declared first, registered on first use."""
    install(app)

    @app.task(name="typo", tenancy="nope", shared=False)
    def typo():
        """Misspelt."""

    with pytest.raises(ValueError, match="typo"):
        typo.delay()


def test_install_works_after_tasks_and_finalize(app) -> None:
    """Whenever it is called, and with whatever kind of task."""

    @app.task(name="early", shared=False)
    def early():
        return current_tenant_or_none()

    app.finalize()
    install(app)

    @app.task(name="late", shared=False)
    def late():
        return current_tenant_or_none()

    class Own(Task):
        name = "own"

        def run(self):
            return current_tenant_or_none()

    own = app.register_task(Own())

    name = f"shared-{uuid.uuid4()}"

    @shared_task(name=name)
    def shared():
        return current_tenant_or_none()

    on_app = app.tasks[name]
    for task in (early, late, own, on_app):
        with pytest.raises(NoTenantError):
            task.apply()
        with tenant_scope("acme"):
            assert task.apply().get() == "acme"


def test_custom_call_and_base_run_bound(app) -> None:
    """What a base class does around the body belongs to the body."""
    install(app)
    seen = []

    class Around(app.Task):
        abstract = True

        def __call__(self, *args, **kwargs):
            seen.append(current_tenant_or_none())
            with tenant_scope("globex", switch=True):
                return super().__call__(*args, **kwargs)

        def on_success(self, *_):
            seen.append(current_tenant_or_none())

    @app.task(name="inside", base=Around, shared=False)
    def inside():
        seen.append(current_tenant_or_none())

    with tenant_scope("acme"):
        inside.apply()
    assert seen == ["acme", "globex", "acme"]


@pytest.mark.parametrize("early", [True, False])
def test_what_a_body_leaves_open_never_reaches_its_later_phases(app, early) -> None:
    """Whether the task was there before the edge or came after it."""
    seen = []
    if not early:
        install(app)

    class Later(app.Task):
        abstract = True

        def on_success(self, *_):
            seen.append(current_tenant_or_none())

    @app.task(name="leaves", base=Later, lazy=False, shared=False)
    def leaves():
        tenant_scope("globex", switch=True).__enter__()

    if early:
        install(app)
    with tenant_scope("acme"):
        leaves.apply()
    assert seen == ["acme"]
    assert type(leaves).bind(app) is app


def test_smallest_alarm_is_the_first_message(app) -> None:
    """A depth counts the new one."""
    install(app, quarantine_alarm=1)
    assert quarantine(app)._edge.quarantine_alarm == 1


def test_install_twice_is_once(app) -> None:
    """The options are the later ones; nothing is wrapped twice."""
    install(app)
    assert repr(quarantine(app)._edge) == (
        "Edge(accept_unsigned_until=None, quarantine='tenantry.quarantine', quarantine_alarm=10000)"
    )
    before = app.send_task, Task.apply, Task.__dict__["bind"]
    install(app, quarantine="other")
    assert (app.send_task, Task.apply, Task.__dict__["bind"]) == before
    assert quarantine(app)._edge.quarantine == "other"
    assert len([fixup for fixup in app.fixups if not isinstance(fixup, str)]) == 1


def test_what_is_replaced_keeps_its_name_and_signature(app) -> None:
    """For those who read it: help, documentation, autospec."""
    install(app)
    for owner, name in ((Task, "apply"), (Task, "start_strategy"), (Task, "replace"), (group, "apply_async")):
        function = getattr(owner, name)
        assert (function.__name__, function.__module__.partition(".")[0]) == (name, "celery")
        assert function.__doc__ == function.__wrapped__.__doc__
    assert "link_error" in inspect.signature(Task.apply).parameters


def test_other_application_is_untouched(app) -> None:
    """Two applications in one process, one installed."""
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)

    @other.task(name="plain", shared=False)
    def plain(*_):
        return current_tenant_or_none()

    install(app)
    plain.delay()
    one = plain.s()
    for canvas in (group(one, one), chain(one, one), chord([one, one], one)):
        assert canvas.apply_async().id
        assert set(canvas.apply().get() or [None]) == {None}
    assert chord([one], one).run(group(one), one, ()).id
    with tenant_scope("acme"):
        assert plain.apply().get() == "acme"
        assert plain.apply(task_id="this").id == "this"
    with other.connection_for_read() as connection:
        message = connection.channel().basic_get("celery", no_ack=True)
    assert "tenantry" not in message.headers
    other.close()


def test_uninstall_gives_the_application_back(app) -> None:
    """Its method, its tasks, its fixups; and it can be installed again."""

    @app.task(name="plain", shared=False)
    def plain():
        return current_tenant_or_none()

    run, fixups = plain.run, app.fixups
    install(app)
    install(app)
    assert not task_has_custom(plain, "__call__")  # else Celery takes the slower way to the body
    kept = app.send_task
    uninstall(app)
    assert "send_task" not in vars(app)
    assert kept("plain").id
    assert plain.run is run
    assert app.fixups == fixups
    plain.delay()
    assert plain.apply().get() is None
    with pytest.raises(ValueError, match="not installed"):
        quarantine(app)
    with pytest.raises(ValueError, match="not installed"):
        fan_out(plain, ["acme"])
    uninstall(app)
    install(app)
    with pytest.raises(NoTenantError):
        plain.delay()


def test_uninstall_leaves_no_bodies_in_classes(app) -> None:
    """Whatever kind of thing they are, and whoever they are inherited from."""

    def plain_function(*args):
        return current_tenant_or_none(), args

    class Base(Task):
        name = "base"

        def run(self, *args):
            return current_tenant_or_none(), args

        def __call__(self, *args):
            return self.run(*args)

    class Sub(Base):
        name = "sub"

    class Static(Task):
        name = "static"
        run = staticmethod(plain_function)

    class OfClass(Task):
        name = "of_class"

        @classmethod
        def run(cls, *args):
            return current_tenant_or_none(), (*args, cls.name)

    class SubOfClass(OfClass):
        name = "sub_of_class"

    class Calls:
        def __call__(self, *args):
            return plain_function(1, *args)

    class OfObject(Task):
        name = "of_object"
        run = Calls()

    classes = [Base, Sub, Static, OfObject, OfClass, SubOfClass]
    before = [(dict(vars(c)).get("run"), "__call__" in vars(c)) for c in classes]
    tasks = [app.register_task(c()) for c in classes]
    install(app)
    with tenant_scope("acme"):
        found = [task.apply((2,)).get() for task in tasks]
    assert found[:4] == [("acme", (2,))] * 3 + [("acme", (1, 2))]
    assert found[4:] == [("acme", (2, "of_class")), ("acme", (2, "sub_of_class"))]
    uninstall(app)
    assert [(dict(vars(c)).get("run"), "__call__" in vars(c)) for c in classes] == before
    assert [task.apply((2,)).get()[0] for task in tasks] == [None] * 6


def test_uninstall_restores_an_attribute_that_was_there(app) -> None:
    """Somebody else may have replaced it before."""
    calls = []
    mine = lambda *args, **kwargs: calls.append((args, kwargs))  # noqa: E731 - identity is what is compared
    app.send_task = mine
    install(app)
    with tenant_scope("acme"):
        app.send_task("x")
    assert calls[0][1]["headers"] == {"tenantry": "v1;acme"}
    uninstall(app)
    assert app.send_task is mine


def test_method_of_the_class_that_is_replaced_later_is_called(app, monkeypatch) -> None:
    """Tracing tools wrap it when they start, which may be after us."""
    install(app)
    calls = []
    monkeypatch.setattr(Celery, "send_task", lambda self, *args, **kwargs: calls.append(kwargs["headers"]))
    with tenant_scope("acme"):
        app.send_task("x")
    assert calls == [{"tenantry": "v1;acme"}]


def test_proxy_of_an_application_is_unwrapped(app) -> None:
    """``celery.current_app`` is one."""
    app.set_current()
    install(current_app)
    assert "send_task" in vars(app)
    operator = quarantine(current_app)
    other = Celery("other", broker="memory://")
    other.set_current()
    with pytest.raises(NoTenantError):
        app.send_task("x")
    assert operator._app is app
    app.set_current()
    other.close()
    uninstall(current_app)
    assert "send_task" not in vars(app)


def test_unpickled_copy_is_installed_with_the_same_options(app) -> None:
    """As a spawned pool process receives it."""
    until = datetime(2030, 1, 1, tzinfo=UTC)
    install(
        app, secret_keys=["old", "new"], accept_unsigned_until=until, quarantine="kept", quarantine_alarm=5
    )
    copy = pickle.loads(pickle.dumps(app))
    assert quarantine(copy)._edge == quarantine(app)._edge
    with pytest.raises(NoTenantError):
        copy.send_task("x")
    copy.close()


def test_unpickled_copy_is_all_that_a_new_process_needs(app) -> None:
    """Celery's classes are as they come from the package there."""
    install(app)
    code = """
import pickle, sys
app = pickle.load(sys.stdin.buffer)
@app.task(name="x", shared=False)
def x(): return "ran"
try: print(x.apply().get())
except Exception as error: print(type(error).__name__)
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(app),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.decode().split() == ["NoTenantError"]


def test_secret_keys_are_shown_nowhere(app) -> None:
    """Neither in the configuration nor in what represents the edge."""
    install(app, secret_keys="hunter2hunter2")
    shown = [repr(app.fixups), repr(quarantine(app)._edge), repr(dict(app.conf)), app.bugreport()]
    assert not [text for text in shown if "hunter2" in text]


def test_tenant_shows_in_celerys_lines_about_tasks(app) -> None:
    """Only where one is active, and once."""
    install(app)
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append((record.getMessage(), record.tenant))

    log = logging.getLogger("celery.app.trace")
    handler = Keep()
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with tenant_scope("acme"):
            log.info("Task %(name)s[%(id)s] received", {"name": "n", "id": "i"})
        log.info("no tenant here")
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert records == [("Task n[i] received (tenant acme)", "acme"), ("no tenant here", "-")]
