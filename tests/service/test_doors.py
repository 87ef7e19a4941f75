from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.keys import entry_of, write_entry
from service.settings import Settings

ENTRY = write_entry(entry_of("key", "infer"))


def test_the_environment_sets_api_keys_separated_by_commas(monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEYS", f" {ENTRY}, {ENTRY.replace('infer', 'admin')} ,")

    assert [entry.role for entry in Settings().api_keys] == ["infer", "admin"]


@pytest.mark.parametrize(("text", "count"), [("", 0), (" , ", 0), (ENTRY, 1), (ENTRY + ",", 1)])
def test_a_blank_is_no_api_key(text, count):
    assert len(Settings(api_keys=text).api_keys) == count


def test_a_key_in_the_place_of_its_entry_is_refused_and_not_repeated():
    with pytest.raises(ValidationError) as refusal:
        Settings(api_keys="hunter2")

    assert "hunter2" not in str(refusal.value)
    assert "new-key" in str(refusal.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_loopback_address_may_be_served_without_keys(host):
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "line-7", "127.0.0.1.org"])
def test_any_other_address_needs_keys_or_somebody_who_means_it(host):
    with pytest.raises(ValidationError, match="SERVICE_ALLOW_OPEN"):
        Settings(host=host)

    assert Settings(host=host, api_keys=ENTRY).api_keys
    assert Settings(host=host, allow_open=True).allow_open


def test_the_environment_sets_origins_separated_by_commas(monkeypatch):
    monkeypatch.setenv("SERVICE_CORS_ORIGINS", "https://a.example, https://b.example,")

    assert Settings().cors_origins == ("https://a.example", "https://b.example")


OPEN = {"host": "0.0.0.0", "allow_open": True}


@pytest.mark.parametrize(
    ("settings", "has_admins"),
    [
        ({}, True),
        (OPEN, False),
        ({"api_keys": ENTRY}, False),
        ({**OPEN, "api_keys": ENTRY}, False),
        ({**OPEN, "api_keys": ENTRY.replace("infer", "admin")}, True),
    ],
    ids=["this machine", "open", "no admin key here", "no admin key", "an admin key"],
)
def test_an_admin_has_a_key_or_sits_at_a_machine_without_keys(settings, has_admins):
    assert Settings(**settings).has_admins is has_admins


@pytest.mark.parametrize(
    ("settings", "origin", "host", "may_ask"),
    [
        ({}, "http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ({}, "http://localhost", "localhost", True),
        ({}, "http://[::1]:8000", "[::1]:8000", True),
        ({}, "http://localhost:3000", "localhost:8000", False),
        ({}, "http://stranger.example", "127.0.0.1:8000", False),
        ({}, "http://stranger.example:8000", "stranger.example:8000", False),
        ({}, "http://127.0.0.1.stranger.example", "127.0.0.1.stranger.example", False),
        ({}, "null", "127.0.0.1:8000", False),
        ({}, "http://", "", False),
        ({}, "[", "[", False),
        (OPEN, "https://line-7:8000", "line-7:8000", True),
        (OPEN, "https://stranger.example", "line-7:8000", False),
        ({"cors_origins": "https://mes.example"}, "https://mes.example", "localhost:8000", True),
        ({"cors_origins": "https://mes.example"}, "http://mes.example", "localhost:8000", False),
        ({"cors_origins": "*"}, "null", "localhost:8000", True),
    ],
)
def test_a_page_may_ask_that_is_the_services_own_or_named(settings, origin, host, may_ask):
    assert Settings(**settings).lets_ask(origin, host) is may_ask


@pytest.mark.parametrize("half", [{"tls_certificate": "c.pem"}, {"tls_key": "k.pem"}])
def test_a_certificate_without_its_key_is_refused(half):
    with pytest.raises(ValidationError, match="together"):
        Settings(**half)
