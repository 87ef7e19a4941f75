from __future__ import annotations

import asyncio

import numpy as np
import pytest
from starlette.requests import Request

from models.errors import (
    ParameterInvalid,
    PictureFormatUnknown,
    PictureTooLarge,
    PictureUnreadable,
)
from models.manifest import Limits
from models.steps.pictures import encode_png
from service.settings import Settings
from service.uploads import ImageMissing, Upload, body_schema, picture_limits, read_upload

BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def read(body: bytes, content_type: str | None, *, max_bytes: int = 10_000, **headers: str):
    """Read a body that arrives in chunks of 7 bytes; also how many of its bytes were taken."""
    taken = 0

    async def receive():
        nonlocal taken
        chunk = body[taken : taken + 7]
        taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": taken < len(body)}

    given = headers | ({"content-type": content_type} if content_type is not None else {})
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    try:
        return asyncio.run(read_upload(request, ("image", "mask"), max_bytes))
    finally:
        read.taken = taken


def part(name: str, data: bytes, *, options: str = '; filename="a.png"', head: str = "") -> bytes:
    lines = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{options}\r\n{head}\r\n'
    return lines.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/JPEG", "application/octet-stream"])
def test_a_raw_body_is_the_image(content_type):
    assert read(b"any bytes at all", content_type) == Upload(b"any bytes at all")


@pytest.mark.parametrize("options", ['; filename="a.png"', "", '; filename=""'])
def test_a_part_is_the_image_with_and_without_a_file_name(options):
    body = part("image", b"\x89\xff\r\n--front", options=options) + END

    assert read(body, FORM) == Upload(b"\x89\xff\r\n--front")


def test_a_form_may_carry_a_mask():
    body = part("mask", b"M") + part("image", b"I") + END

    assert read(body, FORM) == Upload(b"I", b"M")


def test_a_base64_part_is_decoded():
    body = part("image", b"YWJj", head="Content-Transfer-Encoding: base64\r\n") + END

    assert read(body, FORM) == Upload(b"abc")


def test_a_part_larger_than_the_parser_would_keep_in_memory_is_whole():
    data = bytes(1_100_000)

    assert read(part("image", data) + END, FORM, max_bytes=2_000_000).image == data


@pytest.mark.parametrize(
    "body",
    [
        END,
        b"",
        b"no form",
        part("image", b"I"),
        b"--frontier\r\n\r\n\r\n" + END,
        b"--frontier\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
        part("image", b"!", head="Content-Transfer-Encoding: base64\r\n") + END,
        b"--frontier\r\n" + b"X: " + b"y" * 6000 + b"\r\n\r\n" + END,
    ],
    ids=["empty", "nothing", "text", "open", "headless", "nameless", "not base64", "long head"],
)
def test_a_form_without_a_sound_image_part_is_refused(body):
    with pytest.raises(ImageMissing):
        read(body, FORM)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/mixed; boundary=frontier",
        "\x00",
    ],
)
def test_another_content_type_is_refused(content_type):
    with pytest.raises(ImageMissing):
        read(part("image", b"I") + END, content_type)


def test_two_image_parts_are_refused():
    with pytest.raises(ParameterInvalid, match="twice") as refusal:
        read(part("image", b"1") + part("image", b"2") + END, FORM)

    assert refusal.value.field == "image"


def test_an_unknown_part_is_refused_and_the_known_are_named():
    with pytest.raises(ParameterInvalid, match="image, mask") as refusal:
        read(part("picture", b"1") + END, FORM)

    assert refusal.value.field == "picture"


def test_an_announced_size_over_the_limit_is_refused_before_reading():
    with pytest.raises(PictureTooLarge):
        read(bytes(101), "image/png", max_bytes=100, content_length="101")

    assert read.taken == 0


@pytest.mark.parametrize("content_type", ["image/png", FORM])
def test_a_body_is_refused_as_soon_as_it_is_over_the_limit(content_type):
    body = part("image", bytes(5000)) + END

    with pytest.raises(PictureTooLarge):
        read(body, content_type, max_bytes=200)

    assert read.taken <= 207


def test_a_body_of_exactly_the_limit_is_taken():
    assert read(bytes(100), "image/png", max_bytes=100, content_length="100").image == bytes(100)


def test_the_smaller_of_both_pixel_limits_holds():
    settings = Settings(max_pixels=1000)

    assert picture_limits(settings, Limits(min_side_px=1, max_pixels=50)).max_pixels == 50
    assert picture_limits(settings, Limits(min_side_px=1, max_pixels=5000)).max_pixels == 1000


def test_an_upload_is_decoded_with_its_mask():
    limits = picture_limits(Settings(), Limits(min_side_px=1, max_pixels=10_000))
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    upload = Upload(encode_png(np.full((5, 6), 9, np.uint8)), encode_png(mask))

    assert upload.picture(limits).hw == (5, 6)
    assert np.array_equal(upload.decoded_mask(limits), mask)
    assert Upload(upload.image).decoded_mask(limits) is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"text", PictureFormatUnknown),
        (encode_png(np.zeros((5, 6), np.uint8))[:-20], PictureUnreadable),
        (encode_png(np.zeros((1, 11), np.uint8)), PictureTooLarge),
    ],
    ids=["format", "broken", "large"],
)
def test_a_refusal_says_which_part_it_is_about(data, error):
    limits = picture_limits(Settings(max_side_px=10), Limits(min_side_px=1, max_pixels=10_000))
    upload = Upload(data, data)

    with pytest.raises(error, match=r"^image: "):
        upload.picture(limits)
    with pytest.raises(error, match=r"^mask: "):
        upload.decoded_mask(limits)


def test_the_schema_of_a_body_says_what_16_bits_must_span():
    assert "0..65535" in body_schema("image")["requestBody"]["description"]


def test_the_schema_of_a_body_names_its_parts_and_media_types():
    content = body_schema("image", "mask")["requestBody"]["content"]

    assert set(content["multipart/form-data"]["schema"]["properties"]) == {"image", "mask"}
    assert {"image/jpeg", "image/png", "image/bmp", "image/tiff"} <= set(content)
