from __future__ import annotations

import pytest

from tests.bench.load import Ask
from tests.bench.servers import time_of
from tests.processes import serving
from tests.tiny import write_tiny_bundle


@pytest.mark.slow
def test_a_server_that_refuses_is_not_timed(tmp_path):
    write_tiny_bundle(tmp_path)

    with serving(tmp_path) as served:
        served.wait_until_ready()
        with pytest.raises(RuntimeError, match="415"):
            time_of(served.port, Ask("/detect", b"no picture"))
