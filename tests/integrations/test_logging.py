"""The tenant in log records: right behind queues, in children, with ``extra``; never an exception."""

from __future__ import annotations

import copy
import io
import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tenantry import tenant_scope, without_tenant
from tenantry.context import unit_of_work
from tenantry.integrations.logging import TenantFilter, install, uninstall


class Records(logging.Handler):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """Leave the process's record factory as it was."""
    before = logging.getLogRecordFactory()
    yield
    uninstall()
    logging.setLogRecordFactory(before)


@pytest.fixture
def handler() -> Records:
    return Records()


@pytest.fixture
def logger(handler: Records) -> Iterator[logging.Logger]:
    """A logger of its own tree position that reaches ``handler`` alone."""
    made = logging.getLogger("tests.tenant")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    made.addHandler(handler)
    yield made
    made.removeHandler(handler)
    made.propagate = True


@pytest.fixture
def installed() -> None:
    install()


def tenants(handler: Records) -> list[Any]:
    return [record.tenant for record in handler.seen]  # type: ignore[attr-defined]


def test_install_writes_the_active_tenant(installed: None, logger: logging.Logger, handler: Records) -> None:
    """A record carries the tenant that was active where it was logged."""
    with tenant_scope("acme"):
        logger.info("inside")
        with tenant_scope("globex", switch=True):
            logger.info("switched")
    assert tenants(handler) == ["acme", "globex"]


@pytest.mark.parametrize("state", ["never set", "explicitly none", "without_tenant"])
def test_install_writes_a_dash_without_tenant(
    installed: None, logger: logging.Logger, handler: Records, state: str
) -> None:
    """No state without a tenant makes logging raise; the attribute is there for formatters."""
    logging.getLogger("tenantry").setLevel(logging.WARNING)
    if state == "explicitly none":
        with unit_of_work(None):
            logger.info("x")
    elif state == "without_tenant":
        with without_tenant(reason="a test"):
            logger.info("x")
    else:
        logger.info("x")
    assert tenants(handler) == ["-"]


def test_install_reaches_child_loggers(installed: None, logger: logging.Logger, handler: Records) -> None:
    """A child's record reaches the parent's handler with the tenant."""
    with tenant_scope("acme"):
        logger.getChild("a.b").warning("x")
    assert tenants(handler) == ["acme"]


def test_extra_replaces_the_tenant(installed: None, logger: logging.Logger, handler: Records) -> None:
    """``extra={"tenant": …}`` is the user's word, not logging's KeyError."""
    with tenant_scope("acme"):
        logger.info("x", extra={"tenant": "mine"})
        logger.info("x", extra={"tenant": None, "other": 1})
        logger.info("x", extra={"other": 1})
    assert tenants(handler) == ["mine", None, "acme"]


def test_extra_of_an_adapter_replaces_the_tenant(
    installed: None, logger: logging.Logger, handler: Records
) -> None:
    """A LoggerAdapter's extra goes the same way."""
    logging.LoggerAdapter(logger, {"tenant": "adapted"}).info("x")
    assert tenants(handler) == ["adapted"]


def test_extra_still_may_not_overwrite_logging_s_own_fields(installed: None, logger: logging.Logger) -> None:
    """What logging refuses besides the tenant, it still refuses."""
    with pytest.raises(KeyError, match="Attempt to overwrite 'lineno'"):
        logger.info("x", extra={"tenant": "mine", "lineno": 3})  # noqa: G101 - on purpose


def test_extra_with_a_logger_class_that_checks_for_itself(installed: None, handler: Records) -> None:
    """A Logger subclass with its own copy of logging's check is told the same."""

    class Strict(logging.Logger):
        def makeRecord(self, name, level, fn, lno, msg, args, exc_info, func=None, extra=None, sinfo=None):  # type: ignore[no-untyped-def]
            record = logging.getLogRecordFactory()(name, level, fn, lno, msg, args, exc_info, func, sinfo)
            for key in extra or ():
                if key in record.__dict__:
                    raise KeyError(key)
                record.__dict__[key] = extra[key]
            return record

    strict = Strict("strict")
    strict.addHandler(handler)
    strict.error("x", extra={"tenant": "mine"})
    assert tenants(handler) == ["mine"]


def test_record_mapping_reads_as_a_plain_dict(
    installed: None, logger: logging.Logger, handler: Records
) -> None:
    """Formatters that read ``__dict__``, in whichever way, find the tenant."""
    with tenant_scope("acme"):
        logger.info("x")
    fields = handler.seen[0].__dict__
    assert "tenant" in fields
    assert fields["tenant"] == fields.get("tenant") == vars(handler.seen[0])["tenant"] == "acme"
    assert [value for name, value in fields.items() if name == "tenant"] == ["acme"]
    assert json.loads(json.dumps({**fields}, default=str))["tenant"] == "acme"
    assert "tenant" not in {name: 1 for name in fields if name != "tenant"}
    assert "absent" not in fields


@pytest.mark.parametrize(
    ("style", "form"),
    [("%", "%(tenant)s|%(message)s"), ("{", "{tenant}|{message}"), ("$", "$tenant|$message")],
)
def test_formatters_of_every_style_find_the_tenant(
    installed: None, logger: logging.Logger, handler: Records, style: Any, form: str
) -> None:
    """The three styles of formatters read the attribute."""
    with tenant_scope("acme"):
        logger.info("x")
    assert logging.Formatter(form, style=style).format(handler.seen[0]) == "acme|x"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_record_keeps_the_tenant_when_copied(
    installed: None, logger: logging.Logger, handler: Records, duplicate: Any
) -> None:
    """What queues and sockets do to a record does not lose the tenant, nor add a class of ours."""
    with tenant_scope("acme"):
        logger.info("x")
    twin = duplicate(handler.seen[0])
    assert twin.tenant == "acme"
    assert type(twin.__dict__) is dict
    assert type(twin) is logging.LogRecord


def test_pickled_record_needs_no_tenantry(installed: None, logger: logging.Logger, handler: Records) -> None:
    """A log collector without tenantry can read what it is sent."""
    with tenant_scope("acme"):
        logger.info("x")
    assert b"tenantry.integrations" not in pickle.dumps(handler.seen[0])
    socket_payload = logging.handlers.SocketHandler("localhost", 1).makePickle(handler.seen[0])
    assert b"tenantry.integrations" not in socket_payload
    received = logging.makeLogRecord(pickle.loads(socket_payload[4:]))
    assert received.tenant == "acme"  # type: ignore[attr-defined]


def test_received_record_keeps_its_tenant(installed: None) -> None:
    """A record that comes over a socket keeps its tenant, whatever is active here."""
    with tenant_scope("globex"):
        assert logging.makeLogRecord({"msg": "x", "tenant": "acme"}).tenant == "acme"  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["install", "filter"])
def test_queue_listener_thread_writes_the_tenant_of_the_logging_call(
    way: str, logger: logging.Logger, handler: Records
) -> None:
    """Behind a queue the record keeps what it had; the listener's thread adds nothing of its own."""
    channel: queue.SimpleQueue[Any] = queue.SimpleQueue()
    front = logging.handlers.QueueHandler(channel)
    if way == "install":
        install()
    else:
        front.addFilter(TenantFilter())
    back = Records()
    back.addFilter(TenantFilter())
    listener = logging.handlers.QueueListener(channel, back)
    logger.removeHandler(handler)
    logger.addHandler(front)
    with tenant_scope("globex"):
        listener.start()
    try:
        with tenant_scope("acme"):
            logger.getChild("child").info("x")
        logger.info("x")
        logger.info("x", extra={"tenant": "mine"})
    finally:
        listener.stop()
        logger.removeHandler(front)
    assert tenants(back) == ["acme", "-", "mine"]


def test_filter_sets_the_tenant_and_drops_nothing() -> None:
    """The filter answers yes and leaves a tenant that is there."""
    bare = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    with tenant_scope("acme"):
        assert TenantFilter().filter(bare) is True
    assert TenantFilter().filter(bare) is True
    assert bare.tenant == "acme"  # type: ignore[attr-defined]
    fresh = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    assert TenantFilter().filter(fresh) is True
    assert fresh.tenant == "-"  # type: ignore[attr-defined]


def test_filter_takes_a_record_that_refuses_attributes() -> None:
    """A record that cannot be written to passes as it is."""

    class Frozen(logging.LogRecord):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "tenant":
                raise AttributeError(name)
            super().__setattr__(name, value)

    frozen = Frozen("n", logging.INFO, "p", 1, "m", (), None)
    assert TenantFilter().filter(frozen) is True
    assert not hasattr(frozen, "tenant")


def test_dict_config_builds_the_filter(capsys: pytest.CaptureFixture[str]) -> None:
    """The filter is configured by name, as logging documents."""
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"tenant": {"()": "tenantry.integrations.logging.TenantFilter"}},
            "formatters": {"line": {"format": "[%(tenant)s] %(message)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": stream,
                    "filters": ["tenant"],
                    "formatter": "line",
                }
            },
            "loggers": {"tests.configured": {"handlers": ["out"], "level": "INFO", "propagate": False}},
        }
    )
    with tenant_scope("acme"):
        logging.getLogger("tests.configured.child").info("hello")
    assert stream.getvalue() == "[acme] hello\n"


def test_install_stands_on_another_record_factory(logger: logging.Logger, handler: Records) -> None:
    """A factory that was there goes on working, its own class and attributes included."""

    class Mine(logging.LogRecord):
        pass

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = Mine(*args, **kwargs)
        record.tenant = "theirs"  # type: ignore[attr-defined]
        record.request = 7  # type: ignore[attr-defined]
        return record

    logging.setLogRecordFactory(factory)
    install()
    with tenant_scope("acme"):
        logger.info("x")
        logger.info("x", extra={"tenant": "mine"})
    assert tenants(handler) == ["theirs", "mine"]
    assert type(handler.seen[0]) is Mine
    assert handler.seen[0].request == 7  # type: ignore[attr-defined]


def test_install_stands_below_another_record_factory(logger: logging.Logger, handler: Records) -> None:
    """A factory set later sees our attribute, and ``extra`` still wins."""
    install()
    ours = logging.getLogRecordFactory()
    seen: list[Any] = []

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = ours(*args, **kwargs)
        seen.append(record.tenant)  # type: ignore[attr-defined]
        return record

    logging.setLogRecordFactory(factory)
    with tenant_scope("acme"):
        logger.info("x", extra={"tenant": "mine"})
    assert seen == ["acme"]
    assert tenants(handler) == ["mine"]
    uninstall()
    assert logging.getLogRecordFactory() is factory
    logger.removeHandler(handler)
    with pytest.raises(AttributeError, match="tenant"):
        factory("n", logging.INFO, "p", 1, "m", (), None)


def test_install_takes_a_record_without_dict(logger: logging.Logger) -> None:
    """An exotic record of somebody's factory is passed on as it is."""

    class Slotted:
        __slots__ = ("levelno",)

    logging.setLogRecordFactory(lambda *args, **kwargs: Slotted())  # type: ignore[arg-type, return-value]
    install()
    assert type(logging.getLogRecordFactory()()) is Slotted


def test_install_twice_is_once_and_uninstall_restores() -> None:
    """Both can be called any number of times, and install works again afterwards."""
    before = logging.getLogRecordFactory()
    remove = install()
    ours = logging.getLogRecordFactory()
    install()
    assert logging.getLogRecordFactory() is ours
    remove()
    assert logging.getLogRecordFactory() is before
    uninstall()
    assert logging.getLogRecordFactory() is before
    install()
    assert logging.makeLogRecord({}).tenant == "-"  # type: ignore[attr-defined]


def test_install_survives_a_factory_that_was_put_back(logger: logging.Logger, handler: Records) -> None:
    """After somebody restored logging's own factory, install works anew."""
    install()
    logging.setLogRecordFactory(logging.LogRecord)
    install()
    logger.info("x")
    assert tenants(handler) == ["-"]


def test_threads_log_their_own_tenant(installed: None, logger: logging.Logger, handler: Records) -> None:
    """Twenty threads that log at once do not see one another's tenant."""
    start = threading.Barrier(20)

    def work(number: int) -> None:
        with tenant_scope(f"t{number}"):
            start.wait()
            for _ in range(50):
                logger.info("%s", f"t{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handler.seen) == 1000
    assert all(record.getMessage() == record.tenant for record in handler.seen)  # type: ignore[attr-defined]
