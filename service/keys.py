"""API keys: made once, kept as digests, compared in constant time.

A key is 256 bits of chance, so a plain sha256 of it cannot be guessed back: a slow hash is for
passwords, and would cost every request its time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["infer", "admin"]
"""What a key opens: `infer` everything but `/v2/repository`, `admin` all."""

ENTRY = re.compile(rf"({'|'.join(get_args(Role))}):([0-9a-f]{{64}})")


@dataclass(frozen=True)
class KeyEntry:
    """One accepted key, as a deployment keeps it: what it opens, and its digest."""

    role: Role
    sha256: str


def new_key() -> str:
    """A key that nobody has had before. It is told apart from other secrets by its first word."""
    return f"flawsmith_{secrets.token_urlsafe(32)}"


def entry_of(key: str, role: Role) -> KeyEntry:
    """What a deployment keeps of a key."""
    return KeyEntry(role, _digest(key))


def read_entry(text: str) -> KeyEntry:
    """`infer:<sha256 in hex>` as an entry.

    Errors: ValueError, which does not repeat the text: it may be a key that was put there plainly.
    """
    found = ENTRY.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            "an entry is no `infer:<sha256>` or `admin:<sha256>`, 64 hex digits in lower case; "
            "`python -m service new-key` makes one"
        )
    role: Role = "admin" if found[1] == "admin" else "infer"
    return KeyEntry(role, found[2])


def write_entry(entry: KeyEntry) -> str:
    """An entry as `SERVICE_API_KEYS` takes it."""
    return f"{entry.role}:{entry.sha256}"


def roles_of(given: Iterable[str], entries: Iterable[KeyEntry]) -> set[Role]:
    """What these keys open. Every one is compared with every entry, so time tells nothing."""
    digests = [_digest(key) for key in given]
    fitting = [
        entry.role
        for entry in entries
        for digest in digests
        if hmac.compare_digest(digest, entry.sha256)
    ]
    return set(fitting)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
