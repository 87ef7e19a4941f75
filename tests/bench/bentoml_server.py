"""`bentoml serve tests.bench.bentoml_server:Detect --port PORT`: story 1 behind BentoML."""

from __future__ import annotations

import bentoml

from tests.bench.story import WORKERS, Story, Told


@bentoml.service(workers=WORKERS, traffic={"timeout": 600})
class Detect:
    """One of WORKERS processes that tell the story."""

    def __init__(self) -> None:
        self.story = Story.from_environment()

    @bentoml.api(route="/detect")
    def detect(self, image: bytes, /) -> Told:
        """The request's body is the encoded picture."""
        return self.story(image)
