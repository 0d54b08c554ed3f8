"""The header: forms, signatures, conflicts."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap

import pytest

from tenantry import (
    BadTenantSignatureError,
    MalformedTenantHeaderError,
    MissingTenantHeaderError,
    NoTenantError,
    TenantConflictError,
    current_tenant_or_none,
    tenant_scope,
    without_tenant,
)
from tenantry.propagation import HEADER, extract, format_header, inject, normalize_secret_keys, parse_header

OLD, NEW = "an-old-secret-key", "a-new-secret-key"
IDENTITY = {"task_id": "5f1c", "task_name": "app.tasks.reply"}


def injected(tenant="acme", **options):
    carrier = {}
    with tenant_scope(tenant):
        inject(carrier, **options)
    return carrier


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "v1;globex"

    def split(self, *args):
        return ["v1", "globex"]


# --- unsigned ------------------------------------------------------------------------------------------


def test_header_has_its_fixed_form():
    """Name and value, byte for byte."""
    assert injected() == {"tenantry": "v1;acme"}
    assert extract({"tenantry": "v1;acme"}) == "acme"


def test_extract_makes_nothing_active():
    """Reading is not entering."""
    extract(injected())
    assert current_tenant_or_none() is None


def test_inject_needs_a_tenant():
    """Nothing is written without one."""
    carrier = {}
    with pytest.raises(NoTenantError, match="^inject needs"):
        inject(carrier)
    with without_tenant(reason="a test"), pytest.raises(NoTenantError, match="deliberate"):
        inject(carrier)
    assert carrier == {}


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({}, "the header 'tenantry'"),
        (IDENTITY, "the header 'tenantry' of task app.tasks.reply[5f1c]"),
        ({"task_id": "5f1c"}, "the header 'tenantry' of task ?[5f1c]"),
        ({"task_name": "app.tasks.reply"}, "the header 'tenantry' of task app.tasks.reply[?]"),
    ],
    ids=range(4),
)
def test_error_says_which_message_it_is_about(identity, text):
    """As far as that is known."""
    with pytest.raises(MissingTenantHeaderError, match="no tenant header") as caught:
        extract({}, **identity)
    assert caught.value.carrier == text


def test_extract_needs_a_header():
    """Absent is an error that says so."""
    with pytest.raises(MissingTenantHeaderError, match="no tenant header") as caught:
        extract({"Other": "v1;acme"}, **IDENTITY)
    assert "app.tasks.reply[5f1c]" in caught.value.carrier


MALFORMED = [
    "", "acme", "v1", "v1;", "v1;;", ";acme", "v2;acme", "V1;acme", "v1;acme;", "v1;acme;x;y", "v1;acme;a=", "v1;acme;a b", "v1;acme;ab=",
    "v1;acme\n", " v1;acme", "v1;acme ", "v1 ;acme", "v1; acme", "v1;none", "v1;a:b", "v1;é", "v1;" + "a" * 64, "v1;acme,v1;globex",
    "v1;acme;" + "A" * 300, "v1;acme;+/aa", "v1;acme;é", "v1;acme;a", "v1;acme;abcde", "v1;acme;ab", "v1;acme;aab", None, 1, True, 1.5,
    b"v1;acme", ["v1;acme"], ("v1;acme",), {"v1": "acme"}, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("value", MALFORMED, ids=ascii)
@pytest.mark.parametrize("secret_keys", [None, [NEW]], ids=["unsigned", "signed"])
def test_malformed_header_is_refused(value, secret_keys):
    """One text of one form, with or without secret keys; nothing else."""
    with pytest.raises(MalformedTenantHeaderError, match="malformed") as caught:
        extract({HEADER: value}, secret_keys=secret_keys)
    assert "acme" not in str(caught.value).replace("v1;<tenant>", "")


@pytest.mark.parametrize("value", MALFORMED, ids=ascii)
def test_malformed_header_of_the_caller_is_refused(value):
    """What the caller has set is read as strictly, and nothing is written."""
    carrier = {HEADER: value}
    with tenant_scope("acme"), pytest.raises(MalformedTenantHeaderError, match="malformed"):
        inject(carrier)
    assert carrier == {HEADER: value}


def test_text_subclass_counts_by_its_underlying_value():
    """What it overrides is not asked."""
    assert extract({HEADER: Text("v1;acme")}) == "acme"


class Multi(dict):
    """Headers that may hold a name twice, as web frameworks have them."""

    def __init__(self, *values):
        super().__init__({HEADER: values[0]})
        self.values_ = values

    def getlist(self, name):
        return list(self.values_) if name == HEADER else []


def test_two_values_are_malformed():
    """Even if they agree: one of them is not ours."""
    for carrier in (
        Multi("v1;acme", "v1;globex"),
        Multi("v1;acme", "v1;acme"),
        {HEADER: "v1;acme", "Tenantry": "v1;acme"},
    ):
        with pytest.raises(MalformedTenantHeaderError, match="two of them"):
            extract(carrier)
        with tenant_scope("acme"), pytest.raises(MalformedTenantHeaderError, match="two of them"):
            inject(carrier)
    assert extract(Multi("v1;acme")) == "acme"
    assert extract({HEADER: "v1;acme", 5: "x", "other": "y"}) == "acme"


def test_header_of_the_caller_that_agrees_is_free():
    """Setting it by hand is no mistake."""
    carrier = {HEADER: "v1;acme", "x": 1}
    with tenant_scope("acme"):
        inject(carrier)
    assert carrier == {HEADER: "v1;acme", "x": 1}
    signed = injected(secret_keys=NEW)
    before = dict(signed)
    with tenant_scope("acme"):
        inject(signed)
    assert signed == before


@pytest.mark.parametrize("secret_keys", [None, NEW])
def test_header_of_the_caller_that_disagrees_is_a_conflict(secret_keys):
    """Passing a request's headers on never gets them signed."""
    carrier = {HEADER: "v1;globex"}
    with tenant_scope("acme"), pytest.raises(TenantConflictError, match="globex") as caught:
        inject(carrier, secret_keys=secret_keys)
    assert (caught.value.active, caught.value.requested) == ("acme", "globex")
    with pytest.raises(TenantConflictError, match="no tenant") as caught:
        inject(carrier, secret_keys=secret_keys)
    assert caught.value.active is None
    assert carrier == {HEADER: "v1;globex"}


# --- signed ----------------------------------------------------------------------------------------------


def test_signed_header_has_its_form_and_verifies():
    """Three fields; the third is unpadded base64url."""
    carrier = injected(secret_keys=[OLD, NEW], **IDENTITY)
    version, tenant, signature = carrier[HEADER].split(";")
    assert (version, tenant, len(signature)) == ("v1", "acme", 43)
    assert extract(carrier, secret_keys=[OLD, NEW], **IDENTITY) == "acme"


def test_newest_key_signs_and_all_are_accepted():
    """Rotation: add at the end, remove from the front."""
    by_new = injected(secret_keys=[OLD, NEW], **IDENTITY)
    by_old = injected(secret_keys=[OLD], **IDENTITY)
    assert extract(by_new, secret_keys=[NEW], **IDENTITY) == "acme"
    assert extract(by_old, secret_keys=[OLD, NEW], **IDENTITY) == "acme"
    with pytest.raises(BadTenantSignatureError, match="secret_keys"):
        extract(by_new, secret_keys=[OLD], **IDENTITY)
    with pytest.raises(BadTenantSignatureError, match="secret_keys"):
        extract(by_old, secret_keys=[NEW], **IDENTITY)


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"task_id": "5f1c"},
        {"task_name": "app.tasks.reply"},
        {"task_id": "other", "task_name": "app.tasks.reply"},
        {"task_id": "5f1c", "task_name": "other"},
        {"task_id": "", "task_name": "app.tasks.reply"},
        {"task_id": "5f1capp.tasks.reply", "task_name": ""},
        {"task_id": "app.tasks.reply", "task_name": "5f1c"},
    ],
    ids=range(8),
)
def test_signed_header_verifies_for_its_own_message_only(identity):
    """A header that is moved to another message is refused there."""
    carrier = injected(secret_keys=NEW, **IDENTITY)
    with pytest.raises(BadTenantSignatureError, match="for this message"):
        extract(carrier, secret_keys=NEW, **identity)


def test_absent_identity_and_empty_identity_differ():
    """None is not a text."""
    carrier = injected(secret_keys=NEW)
    assert extract(carrier, secret_keys=NEW) == "acme"
    with pytest.raises(BadTenantSignatureError, match="for this message"):
        extract(carrier, secret_keys=NEW, task_id="", task_name="")


def test_tenant_cannot_be_exchanged():
    """The signature covers the tenant."""
    signature = injected(secret_keys=NEW, **IDENTITY)[HEADER].split(";")[2]
    with pytest.raises(BadTenantSignatureError, match="for this message") as caught:
        extract({HEADER: f"v1;globex;{signature}"}, secret_keys=NEW, **IDENTITY)
    assert signature not in str(caught.value)
    assert NEW not in str(caught.value)


def test_unsigned_header_is_refused_where_keys_are_set():
    """Signing that is switched on is never optional."""
    with pytest.raises(BadTenantSignatureError, match="no signature"):
        extract(injected(), secret_keys=NEW)


def test_every_changed_character_of_a_signature_is_refused():
    """Not even the spare bits of the last character are free."""
    carrier = injected(secret_keys=NEW, **IDENTITY)
    value = carrier[HEADER]
    for index in range(len("v1;acme;"), len(value)):
        for char in "ABCDwxyz0189-_":
            if value[index] == char:
                continue
            changed = value[:index] + char + value[index + 1 :]
            with pytest.raises((BadTenantSignatureError, MalformedTenantHeaderError), match="tenant header"):
                extract({HEADER: changed}, secret_keys=NEW, **IDENTITY)


def test_signature_is_not_read_without_keys_but_its_form_is():
    """A process without keys cannot verify; it does not accept rubbish either."""
    assert extract({HEADER: "v1;acme;AAAA"}) == "acme"
    assert parse_header("v1;acme;AAAA", carrier="x") == ("acme", "AAAA")


def test_agreeing_unsigned_header_of_the_caller_is_signed():
    """It is replaced, so that the worker can verify it."""
    carrier = {HEADER: "v1;acme"}
    with tenant_scope("acme"):
        inject(carrier, secret_keys=NEW, **IDENTITY)
    assert extract(carrier, secret_keys=NEW, **IDENTITY) == "acme"


def test_agreeing_signed_header_of_another_message_is_signed_anew():
    """A retry's header is for the retry."""
    carrier = injected(secret_keys=OLD, task_id="other")
    with tenant_scope("acme"):
        inject(carrier, secret_keys=[OLD, NEW], **IDENTITY)
    assert extract(carrier, secret_keys=[NEW], **IDENTITY) == "acme"


@pytest.mark.parametrize(
    ("task_id", "task_name"),
    [("a|1:b", "c"), ("a", "b|1:c"), ("é", "日"), ("\ud800", "x"), ("", ""), (None, "x"), ("x", None)],
)
def test_any_identity_can_be_signed(task_id, task_name):
    """Ids and names are texts of any kind."""
    carrier = injected(secret_keys=NEW, task_id=task_id, task_name=task_name)
    assert extract(carrier, secret_keys=NEW, task_id=task_id, task_name=task_name) == "acme"


def test_format_header_is_what_inject_writes():
    """For edges that have the tenant at hand."""
    assert format_header("acme", secret_keys=NEW, **IDENTITY) == injected(secret_keys=NEW, **IDENTITY)[HEADER]


# --- secret keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret_keys", [[], (), "", " ", b"", [""], [NEW, ""], ["\n"]], ids=ascii)
def test_empty_or_blank_secret_keys_are_refused(secret_keys):
    """Signing that cannot work never looks switched on."""
    for call in (lambda: injected(secret_keys=secret_keys), lambda: extract({}, secret_keys=secret_keys)):
        with pytest.raises(ValueError, match="secret"):
            call()


@pytest.mark.parametrize("secret_keys", [5, [5], [None], [[NEW]], {NEW}, {NEW: 1}], ids=ascii)
def test_secret_keys_of_other_types_are_refused(secret_keys):
    """The message names the type and never the key."""
    with pytest.raises(TypeError):
        extract({HEADER: "v1;acme"}, secret_keys=secret_keys)


def test_one_text_is_one_key():
    """It is not a sequence of characters."""
    assert (
        normalize_secret_keys("abc")
        == normalize_secret_keys(b"abc")
        == normalize_secret_keys(["abc"])
        == (b"abc",)
    )
    assert normalize_secret_keys(key for key in ("a", "b")) == (b"a", b"b")
    assert normalize_secret_keys(None) is None


def test_missing_itsdangerous_names_the_extra(monkeypatch):
    """Without it nothing is signed, and nothing goes out unsigned."""
    real = builtins.__import__

    def importing(name, *args, **kwargs):
        if name == "itsdangerous":
            raise ModuleNotFoundError("No module named 'itsdangerous'", name=missing)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    missing = "itsdangerous"
    with pytest.raises(ImportError, match=r"pip install tenantry\[signing\]"):
        injected(secret_keys="a-key-of-this-test-only")
    missing = "something_else"
    with pytest.raises(ModuleNotFoundError, match="itsdangerous"):
        injected(secret_keys="a-key-of-this-test-only")


def test_unsigned_headers_import_nothing():
    """The standard library is enough for them."""
    source = """
        import sys
        from tenantry import tenant_scope
        from tenantry.propagation import extract, inject
        with tenant_scope("acme"):
            inject(carrier := {})
        extract(carrier)
        sys.exit("itsdangerous" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(source)], check=False).returncode == 0
