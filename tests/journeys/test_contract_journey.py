"""The served OpenAPI document is the contract: whatever it allows is asked, and held against it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from models.steps.pictures import encode_png
from service.app import create_app
from service.keys import entry_of, new_key, write_entry
from service.settings import Settings
from tests.tiny import write_tiny_bundle

EXAMPLES = 40
KEY = new_key()
PICTURE = encode_png(np.pad(np.full((10, 12, 1), 255, np.uint8), ((20, 66), (40, 76), (0, 2))))
"""A red square: the tiny bundle's defect."""
BODIES = st.one_of(
    st.just(PICTURE),
    st.binary(max_size=64),
    st.integers(0, len(PICTURE)).map(lambda kept: PICTURE[:kept]),
)
for media_type in (
    "image/png",
    "image/jpeg",
    "image/bmp",
    "image/tiff",
    "application/octet-stream",
):
    schemathesis.openapi.media_type(media_type, BODIES)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    bundles = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(bundles)
    keys = write_entry(entry_of(KEY, "admin"))
    app = create_app(Settings(bundles=bundles, threads=1, workers=2, api_keys=keys))
    config = schemathesis.Config.from_dict(
        {"checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]}}}
    )  # a deadline of few milliseconds may be asked for
    with TestClient(app):
        yield schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


@pytest.mark.slow
def test_every_answer_is_one_that_the_document_promises(contract: BaseSchema) -> None:
    operations = [found.ok() for found in contract.get_all_operations()]

    assert len(operations) > 10
    for operation in operations:
        hold_to_contract(operation)


def hold_to_contract(operation: APIOperation) -> None:
    """Ask one operation what the document allows, and a little beyond; errors name the request."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    def ask(case: Case) -> None:
        # That bytes are no picture is nothing that a schema can say.
        case.call_and_validate(
            excluded_checks=[positive_data_acceptance], headers={"Authorization": f"Bearer {KEY}"}
        )

    ask()
