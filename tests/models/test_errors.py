from __future__ import annotations

import pytest

from models import errors
from models.errors import BundleError, DeviceLost, FlawsmithError, InputError, ParameterInvalid

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", ALL)
def test_whoever_catches_the_root_catches_every_error(kind: type) -> None:
    assert issubclass(kind, FlawsmithError)


@pytest.mark.parametrize("kind", [kind for kind in ALL if not kind.__subclasses__()])
def test_an_error_is_the_inputs_the_bundles_or_the_devices_fault(kind: type) -> None:
    assert sum(issubclass(kind, fault) for fault in (InputError, BundleError, DeviceLost)) == 1


def test_an_invalid_parameter_names_its_field_in_the_error_and_in_the_message() -> None:
    error = ParameterInvalid("region", "reaches outside")

    assert error.field == "region"
    assert str(error) == "region: reaches outside"
