"""SERVICE_* environment: who may come in, by which door, and how slowly."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.keys import KeyEntry, read_entry

HOST = re.compile(r"\[?([^\[\]]*?)\]?(?::[0-9]+)?")
"""The name or address in a `Host`, without its port."""


class Doors(BaseSettings):
    """The part of the settings that strangers meet first. A refused value is never repeated."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True, hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one"
    )
    api_keys: Annotated[tuple[KeyEntry, ...], NoDecode] = Field(
        default=(),
        description="accepted API keys as <role>:<sha256>, separated by commas; empty: none is "
        "asked for. `python -m service new-key` makes one",
    )
    allow_open: bool = Field(
        default=False, description="serve without API keys on an address that others can reach"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins whose pages may ask, separated by commas: https://mes.example; "
        "* is any",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate chain; with it, HTTPS alone is served",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key")
    max_connections: int = Field(
        default=512, ge=1, le=65535, description="connections that may be open; then 503"
    )
    max_head_bytes: int = Field(
        default=65536, ge=1024, description="largest head of a request, bytes; then 431"
    )
    max_headers: int = Field(
        default=100, ge=16, le=10000, description="most headers of a request; then 431"
    )
    head_timeout_s: float = Field(
        default=10.0, gt=0.0, le=3600.0, description="time for a request's head; then 408"
    )
    stall_s: float = Field(
        default=10.0,
        gt=0.0,
        le=3600.0,
        description="a body, or the reading of an answer, that is too slow for so long is cut",
    )
    min_bytes_per_s: int = Field(
        default=1000, ge=1, description="what is too slow: fewer bytes a second than this"
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split_origins(cls, value: object) -> object:
        """Read `a,b` as two."""
        return words_of(value) if isinstance(value, str) else value

    @field_validator("api_keys", mode="before")
    @classmethod
    def read_keys(cls, value: object) -> object:
        """Errors: ValueError, which does not repeat the entry."""
        return tuple(map(read_entry, words_of(value))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def refuse_half_a_lock(self) -> Self:
        """A certificate needs its key, and a key its certificate."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SERVICE_TLS_CERTIFICATE and SERVICE_TLS_KEY are set together")
        return self

    @model_validator(mode="after")
    def refuse_an_open_door(self) -> Self:
        """Without keys whoever reaches the address is served: that must be meant."""
        if not (self.api_keys or self.allow_open or is_loopback(self.host)):
            raise ValueError(
                "without SERVICE_API_KEYS only a loopback address is served; set keys "
                "(`python -m service new-key`), or SERVICE_ALLOW_OPEN=true if that is meant"
            )
        return self

    @property
    def has_admins(self) -> bool:
        """Whether anybody may change bundles: an `admin` key, or this machine where no keys are."""
        roles = {entry.role for entry in self.api_keys}
        return "admin" in roles if roles else is_loopback(self.host)

    def lets_ask(self, origin: str, host: str) -> bool:
        """Whether a page of an origin may ask the service as that `Host`: its own, or a named one.

        At a loopback address its own page is one of a loopback name. Any other name may have been
        pointed there by a stranger.
        """
        if {"*", origin} & set(self.cors_origins):
            return True
        name = HOST.fullmatch(host)
        is_ours = name is not None and (is_loopback(name[1]) or not is_loopback(self.host))
        return is_ours and origin.partition("://")[2] == host


def words_of(text: str) -> tuple[str, ...]:
    """What stands between commas; blanks are dropped, so `a,` is one word."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost may be any."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
