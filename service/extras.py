"""Settings that cannot be had, and those that need more than is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import FlawsmithError


class SettingRefused(FlawsmithError):
    """A setting is no such thing; the words name it, and repeat no secret."""


class ExtraMissing(SettingRefused):
    """A setting asks for what is not installed."""


@contextmanager
def extra_of(setting: str, extra: str) -> Iterator[None]:
    """Import inside what a setting needs. Errors: ExtraMissing, which says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = f"`pip install --constraint constraints.txt -e '.[{extra}]'` in the checkout"
        raise ExtraMissing(f"{setting} needs {error.name}: {how}") from error
