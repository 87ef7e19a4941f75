"""What a client accepts -> what it gets (RFC 9110, 12.5.1)."""

from __future__ import annotations

from models.errors import FlawsmithError

MEDIA_TYPES = ("application/json", "application/zip")
"""What samples can be sent as; the first where a client has no favourite."""


class MediaTypeRefused(FlawsmithError):
    """The client accepts none of the media types that this route can answer with."""


def favourite_type(accept: str) -> str:
    """The one of ours that an `Accept` header likes best.

    Errors: MediaTypeRefused where it takes none.
    """
    weights = dict(map(_media_range, accept.split(",")))
    wanted = {name: _weight(name, weights) for name in MEDIA_TYPES}
    favourite = max(MEDIA_TYPES, key=lambda name: wanted[name])
    if wanted[favourite] <= 0.0:
        raise MediaTypeRefused(f"this route answers with {' or '.join(MEDIA_TYPES)}")
    return favourite


def _media_range(text: str) -> tuple[str, float]:
    name, *options = (part.strip().lower() for part in text.split(";"))
    quality = next((option[2:] for option in options if option.startswith("q=")), "1")
    return name, float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0


def _weight(name: str, weights: dict[str, float]) -> float:
    """The most specific range that covers the name decides."""
    family = name.partition("/")[0] + "/*"
    return next((weights[key] for key in (name, family, "*/*") if key in weights), 0.0)
