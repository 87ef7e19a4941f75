from __future__ import annotations

import pytest

from service.extras import ExtraMissing, extra_of


def test_a_missing_extra_is_named_with_its_setting():
    with (
        pytest.raises(ExtraMissing, match=r"SERVICE_X needs no_such_module: .*-e '\.\[x\]'"),
        extra_of("SERVICE_X", "x"),
    ):
        import no_such_module  # noqa: F401
