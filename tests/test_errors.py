"""Errors keep their data and say what to do."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from tenantry import errors
from tenantry.errors import (
    BadTenantSignatureError,
    CrossTenantError,
    InvalidKeyPartError,
    InvalidTenantIdError,
    KeySchemaError,
    MalformedTenantHeaderError,
    MissingTenantHeaderError,
    NoTenantError,
    PropagationError,
    ResolutionError,
    ScopeOrderError,
    TenancyError,
    TenantConflictError,
    UnknownCommandError,
    shown,
)

SAMPLES = [
    NoTenantError("memory_short", "explicitly none"),
    TenantConflictError("acme", "globex"),
    TenantConflictError(None, "globex"),
    ScopeOrderError("a", "b"),
    InvalidTenantIdError("'a b'", "no blanks"),
    InvalidKeyPartError("cart", "cart_id", "None", "not text"),
    KeySchemaError("a", "b", "they meet"),
    KeySchemaError("a"),
    ResolutionError(400, "No tenant", ("header",), "send one"),
    PropagationError("task x"),
    MissingTenantHeaderError("task x"),
    MalformedTenantHeaderError("task x", "two values"),
    BadTenantSignatureError("task x"),
    CrossTenantError("GET", 1, "acme"),
    UnknownCommandError("FOO", None, None),
]
IDS = [type(error).__name__ for error in SAMPLES]


def data_of(error):
    return {name: value for name, value in vars(error).items() if not name.startswith("__")}


def test_samples_cover_every_error():
    """No error of the module is without a sample below."""
    classes = {getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}
    assert classes - {TenancyError} == {type(error) for error in SAMPLES}


@pytest.mark.parametrize("error", SAMPLES, ids=IDS)
def test_error_survives_pickle(error):
    """Pickling keeps type, data and message."""
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), data_of(back), str(back)) == (type(error), data_of(error), str(error))


@pytest.mark.parametrize("error", SAMPLES, ids=IDS)
def test_error_survives_copies(error):
    """Copying and deep-copying keep type, data and message."""
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert (type(back), data_of(back), str(back)) == (type(error), data_of(error), str(error))


@pytest.mark.parametrize("error", SAMPLES, ids=IDS)
def test_error_survives_json_results(error):
    """A result store that keeps args as JSON and rebuilds by cls(*args) keeps data and message."""
    back = type(error)(*json.loads(json.dumps(error.args)))
    assert (data_of(back), str(back), back.args) == (data_of(error), str(error), error.args)


@pytest.mark.parametrize(
    ("error", "twin"),
    [
        (NoTenantError, LookupError),
        (TenantConflictError, RuntimeError),
        (ScopeOrderError, RuntimeError),
        (InvalidTenantIdError, ValueError),
        (InvalidKeyPartError, ValueError),
        (KeySchemaError, ValueError),
        (MissingTenantHeaderError, PropagationError),
        (MalformedTenantHeaderError, PropagationError),
        (BadTenantSignatureError, PropagationError),
    ],
)
def test_error_has_its_twin(error, twin):
    """Each error is caught by its twin, and none by what hosts swallow."""
    assert issubclass(error, twin)
    assert issubclass(error, TenancyError)
    assert not issubclass(error, OSError | KeyError | AttributeError | PermissionError)


@pytest.mark.parametrize("state", ["never set", "explicitly none", "without_tenant"])
def test_no_tenant_error_names_function_and_cure(state):
    """The message names who asked, and each state has its own cure."""
    text = str(NoTenantError("memory_short", state))
    assert text.startswith("memory_short needs an active tenant")
    assert "tenant_scope(...)" in text
    others = {"never set", "explicitly none", "without_tenant"} - {state}
    assert all(str(NoTenantError("memory_short", other)) != text for other in others)


def test_no_tenant_error_with_unknown_state_still_helps():
    """A state that a newer process has sent is no reason for a second error."""
    assert "tenant_scope" in str(NoTenantError("x", "new"))


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (TenantConflictError(None, "globex"), ["no tenant", "'globex'", "switch=True"]),
        (TenantConflictError("acme", None), ["'acme'", "no tenant was asked"]),
        (ResolutionError(503, "Try later"), ["503 Try later"]),
        (ResolutionError(400, "No tenant", ("Header('x')",), "why"), ["Header('x')", "why"]),
        (CrossTenantError("MGET", 2, "acme"), ["MGET", "argument 2", "'acme'", "key function"]),
        (CrossTenantError("KEYS", None, None, "not allowed"), ["KEYS refused for no tenant: not allowed"]),
        (UnknownCommandError("FOO", None, "acme"), ["commands={'FOO': 1}"]),
        (UnknownCommandError("FOO", None, "acme", "no"), ["FOO refused for tenant 'acme': no"]),
        (MalformedTenantHeaderError("task x", "it is null"), ["task x", "it is null", "inject()"]),
    ],
)
def test_message_says_what_and_what_to_do(error, parts):
    """Messages carry the data and the cure."""
    for part in parts:
        assert part in str(error)


class Rude:
    def __repr__(self):
        raise RuntimeError("no")


class LyingText(str):
    __slots__ = ()

    def __repr__(self):
        return "lie"


class LyingBytes(bytes):
    def __repr__(self):
        return "lie"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        (LyingText("x"), "'x'"),
        (LyingBytes(b"x"), "b'x'"),
        (None, "None"),
        (Rude(), "<Rude>"),
        (10**5000, "<int>"),
        (12, "12"),
    ],
    ids=["str", "str subclass", "bytes subclass", "None", "repr fails", "int of many digits", "int"],
)
def test_shown_is_repr_of_the_underlying_value(value, text):
    """A refused value is shown by repr, subclasses by what they are, and showing never fails."""
    assert shown(value) == text


@pytest.mark.parametrize("value", ["x" * 10_000, b"x" * 10_000, ["x" * 10_000]], ids=["str", "bytes", "list"])
def test_shown_is_cut_at_forty_characters(value):
    """A long value cannot flood a log line."""
    assert len(shown(value)) == 40


def test_values_are_cut_in_the_constructor():
    """Whoever raises the error, its value is short."""
    assert len(InvalidTenantIdError("x" * 99, "r").value) == 40
    assert len(InvalidKeyPartError("f", "p", "x" * 99).value) == 40


@pytest.mark.parametrize("value", [None, 7, b"x" * 90, ["a"] * 90], ids=["None", "int", "bytes", "list"])
def test_errors_made_by_others_take_the_value_itself(value):
    """What refuses a value need not have made its ``repr`` before."""
    for error in (InvalidTenantIdError(value, "rule"), InvalidKeyPartError("cart", "cart_id", value)):
        assert error.value == shown(value)
        assert type(error)(*error.args).value == error.value
        assert shown(value) in str(error)
