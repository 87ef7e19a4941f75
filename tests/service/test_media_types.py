from __future__ import annotations

import pytest

from service.media_types import MediaTypeRefused, favourite_type

JSON, ZIP = "application/json", "application/zip"


@pytest.mark.parametrize(
    ("accept", "favourite"),
    [
        ("*/*", JSON),
        (ZIP, ZIP),
        (f"{ZIP};q=0.5, */*;q=0.1", ZIP),
        (f"application/*, {ZIP};q=0.2", JSON),
        (f"{JSON};q=0, application/*", ZIP),
        (f"text/html, {ZIP};q=0.9, {JSON};q=0.8", ZIP),
        (f"{JSON};q=lots, {ZIP};q=0.1", ZIP),
    ],
)
def test_the_most_liked_of_ours_is_sent(accept, favourite):
    assert favourite_type(accept) == favourite


def test_a_type_that_there_is_not_is_refused():
    with pytest.raises(MediaTypeRefused, match="application/zip"):
        favourite_type("text/html")
