"""Frozen values, of which manifests and their parts are made."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Frozen(BaseModel):
    """A value of the manifest: complete, known fields only, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
