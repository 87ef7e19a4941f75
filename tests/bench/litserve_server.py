"""`python -m tests.bench.litserve_server PORT`: story 1 behind LitServe; needs the extra `bench`.

A picture comes as base64 in JSON, for the queue between LitServe's processes takes no uploaded
file over a megabyte. LitServe reads the annotations, so they must be real ones here.
"""

import base64
import sys

import litserve
from fastapi import Request

from tests.bench.story import WORKERS, Story, Told


class Detect(litserve.LitAPI):
    """One of WORKERS processes that tell the story."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Called once in each process."""
        self.story = Story.from_environment()

    def decode_request(self, request: Request) -> bytes:
        """What comes is the JSON already; the encoded picture is in it."""
        return base64.b64decode(request["image"])

    def predict(self, encoded: bytes) -> Told:
        """The story."""
        return self.story(encoded)

    def encode_response(self, told: Told) -> Told:
        """It is plain already."""
        return told


if __name__ == "__main__":
    server = litserve.LitServer(
        Detect(api_path="/detect"), accelerator="cpu", workers_per_device=WORKERS, timeout=False
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
