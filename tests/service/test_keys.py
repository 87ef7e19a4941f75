from __future__ import annotations

import pytest

from service.keys import KeyEntry, entry_of, new_key, read_entry, roles_of, write_entry


def test_a_new_key_is_long_and_another_each_time():
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert min(len(key.removeprefix("flawsmith_")) for key in keys) >= 43


def test_an_entry_is_read_as_it_was_written_and_does_not_hold_the_key():
    key = new_key()

    text = write_entry(entry_of(key, "admin"))

    assert read_entry(f" {text} ") == entry_of(key, "admin")
    assert key not in text
    assert text.startswith("admin:")


def test_an_entry_holds_the_sha256_that_any_tool_would_make():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert entry_of("", "infer") == KeyEntry("infer", empty)


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "infer:hunter2",
        f"root:{'0' * 64}",
        "0" * 64,
        f"infer:{'G' * 64}",
        f"infer:{'A' * 64}",
        f"infer:{'0' * 63}",
        f"infer:{'0' * 64}\n:",
        "",
    ],
)
def test_what_is_no_entry_is_refused_and_not_repeated(text):
    with pytest.raises(ValueError, match="new-key") as refusal:
        read_entry(text)

    assert "hunter2" not in str(refusal.value)


def test_a_key_opens_what_its_entry_says():
    first, second = new_key(), new_key()
    entries = [entry_of(first, "infer"), entry_of(second, "admin")]

    assert roles_of([first], entries) == {"infer"}
    assert roles_of(["", second], entries) == {"admin"}
    assert roles_of([first, second], entries) == {"infer", "admin"}


@pytest.mark.parametrize("given", ["", "other", "ä", "\ud800".encode("utf-8", "ignore").decode()])
def test_another_key_opens_nothing(given):
    assert roles_of([given], [entry_of(new_key(), "admin")]) == set()


def test_a_digest_does_not_open_what_its_key_opens():
    entry = entry_of(new_key(), "admin")

    assert roles_of([entry.sha256, write_entry(entry)], [entry]) == set()
