"""URLs of places that a setting names. A refused one is never repeated: it may hold a password."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit


def address_of(url: str, schemes: tuple[str, ...], refusal: str) -> SplitResult:
    """The parts of a URL of such a scheme, with a host. Errors: ValueError, saying `refusal`."""
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_known = False
    if not is_known or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(refusal)
    return parts
