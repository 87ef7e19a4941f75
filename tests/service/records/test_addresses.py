from __future__ import annotations

import pytest

from service.records.addresses import address_of


def test_an_address_is_split():
    parts = address_of("mqtts://user:pass@broker:8883", ("mqtt", "mqtts"), "no")

    assert (parts.scheme, parts.hostname, parts.port) == ("mqtts", "broker", 8883)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:1883",
        "http://broker",
        "mqtt://",
        "mqtt://confidential:x@h:port",
        "mqtt://h:99999",
        "mqtt://[confidential",
        "mqtt://confidential@h℀x",
        "mqtt://h/a b",
        "mqtt://h/\n",
    ],
)
def test_another_address_is_refused_in_the_words_that_were_given(url):
    with pytest.raises(ValueError, match=r"^SERVICE_X is mqtt://HOST$"):
        address_of(url, ("mqtt",), "SERVICE_X is mqtt://HOST")
