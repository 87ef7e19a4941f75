from __future__ import annotations

import io
import logging
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.errors import BundleError
from models.steps.pictures import encode_png
from service.app import create_app, installed_version
from service.settings import Settings


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def colour(width: int = 128, height: int = 96) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2, 0] = 255
    return Image.fromarray(pixels)


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    """A grey PNG of that size whose pixels are `data`, deflated."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animated() -> bytes:
    frames = [colour(), colour().rotate(90, expand=False)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


def many_pages() -> bytes:
    return saved(colour(), "TIFF", save_all=True, append_images=[colour()])


TAKEN = {
    "jpeg": saved(colour(), "JPEG"),
    "bmp": saved(colour(), "BMP"),
    "tiff": saved(colour(), "TIFF"),
    "palette": saved(colour().quantize(4), "PNG"),
    "grey": saved(colour().convert("L"), "PNG"),
    "16 bit": encode_png(np.full((96, 128), 40_000, np.uint16)),
    "opaque alpha": saved(colour().convert("RGBA"), "PNG"),
}
REFUSED = {
    "empty": (b"", 415),
    "text": (b"not a picture", 415),
    "gif": (saved(colour(), "GIF"), 415),
    "webp": (saved(colour(), "WEBP"), 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "truncated jpeg": (TAKEN["jpeg"][:-200], 422),
    "truncated png": (TAKEN["palette"][:60], 422),
    "jpeg magic alone": (b"\xff\xd8\xff", 422),
    "CMYK": (saved(colour().convert("CMYK"), "JPEG"), 422),
    "alpha": (saved(Image.new("RGBA", (128, 96), (9, 9, 9, 90)), "PNG"), 422),
    "1 x 1": (saved(colour(1, 1), "PNG"), 422),
    "60000 x 1": (png_header(60_000, 1, bytes(60_001)), 413),
    "0 x 0": (png_header(0, 0), 422),
    "900 MB in 1 MB": (png_header(30_000, 30_000, bytes(900_000_000 // 30)), 413),
    "2^31 wide": (png_header(2**31 - 1, 2**31 - 1), 413),
    "size that lies": (png_header(128, 96, b"few"), 422),
    "animated": (animated(), 422),
    "many pages": (many_pages(), 422),
}


@pytest.fixture
def good(client, red_square_png):
    """Whether a good request is still answered well."""

    def ask() -> bool:
        answer = client.post("/detect", files={"image": red_square_png})
        return answer.status_code == 200 and answer.json()["verdict"] == "ng"

    return ask


def assert_problem(answer, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


@pytest.mark.parametrize("name", TAKEN)
def test_an_accepted_picture_is_taken_whatever_it_is_called(client, name):
    files = {"image": ("picture.gif", TAKEN[name], "image/gif")}

    assert client.post("/detect", files=files).status_code == 200


@pytest.mark.parametrize("path", ["/detect", "/synthesize"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_is_not_taken_is_a_problem_and_the_service_goes_on(client, good, name, path):
    data, status = REFUSED[name]

    answer = client.post(path, files={"image": ("picture.png", data)})

    assert_problem(answer, status)
    assert good()


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"--x--", {"Content-Type": "multipart/form-data; boundary=y"}, 415),
        (b"garbage", {"Content-Type": "multipart/form-data"}, 415),
        (b"garbage", {"Content-Type": 'multipart/form-data; boundary="'}, 415),
        (b"garbage", {}, 415),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (TAKEN["jpeg"], {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, 200),
        (TAKEN["jpeg"], {"Content-Type": "image/jpeg", "X-Huge": "h" * 50_000}, 200),
        (TAKEN["jpeg"], {"Content-Type": "image/jpeg", "X-Request-Id": "i" * 5_000}, 200),
    ],
    ids=[
        "boundary",
        "no boundary",
        "broken boundary",
        "no type",
        "json",
        "said gzip",
        "huge header",
        "huge id",
    ],
)
def test_a_strange_head_is_answered_and_the_service_goes_on(client, good, content, headers, status):
    answer = client.post("/detect", content=content, headers=headers)

    if status == 200:
        assert answer.status_code == 200
    else:
        assert_problem(answer, status)
    assert good()


@pytest.mark.parametrize(
    ("files", "status", "word"),
    [
        ([("picture", b"x")], 422, "picture"),
        ([("mask", b"x")], 422, "mask"),
        ([("image", TAKEN["jpeg"]), ("image", TAKEN["jpeg"])], 422, "image"),
    ],
    ids=["another name", "a mask for detection", "two images"],
)
def test_a_form_with_the_wrong_parts_is_told_which(client, good, files, status, word):
    answer = client.post("/detect", files=files)

    assert_problem(answer, status)
    assert word in answer.json()["detail"]
    assert good()


def test_a_form_without_a_part_is_refused(client):
    head = {"Content-Type": "multipart/form-data; boundary=x"}

    assert_problem(client.post("/detect", content=b"--x--\r\n", headers=head), 415)


@pytest.mark.parametrize("product", ["none", "../../etc", "/etc/passwd", "%00", "a" * 3000])
def test_an_unknown_product_is_not_found_and_not_repeated(client, good, product):
    answer = client.post("/detect", params={"product": product}, files={"image": TAKEN["jpeg"]})

    assert_problem(answer, 404)
    assert answer.json()["code"] == "unknown_product"
    assert product not in answer.text
    assert good()


@pytest.mark.parametrize(("size", "status"), [((96, 400), 413), ((400, 96), 413), ((96, 96), 200)])
def test_a_picture_that_is_too_long_for_its_width_is_refused(serve, size, status):
    client = serve(max_side_ratio=4)

    answer = client.post("/detect", files={"image": saved(colour(*size), "PNG")})

    assert answer.status_code == status


@pytest.mark.parametrize(
    "part",
    [
        "".join(f"X-{i}: 1\r\n" for i in range(50)),
        f"X: {'h' * 10_000}\r\n",
        'Content-Disposition: form-data; name="a"\r\n\r\n' + "\r\n--x\r\n" * 1000,
    ],
    ids=["many headers", "a long header", "many parts"],
)
def test_a_form_beyond_its_limits_is_refused(client, good, part):
    head = {"Content-Type": "multipart/form-data; boundary=x"}

    answer = client.post("/detect", content=f"--x\r\n{part}\r\n", headers=head)

    assert answer.status_code in (415, 422)
    assert good()


def test_more_bytes_than_allowed_are_refused(serve):
    client = serve(max_bytes=1000)

    answer = client.post("/detect", files={"image": bytes(2000)})

    assert_problem(answer, 413)
    assert answer.json()["code"] == "too_large"


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long(serve):
    client = serve(max_bytes=1000)
    sent = []

    def endless():
        while len(sent) < 50:
            sent.append(bytes(500))
            yield sent[-1]

    answer = client.post("/detect", content=endless(), headers={"Content-Type": "image/png"})

    assert_problem(answer, 413)


def test_a_bad_bundle_fails_the_start(tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "manifest.json").write_text("{}")

    with pytest.raises(BundleError), TestClient(create_app(Settings(bundles=tmp_path))):
        pass


def test_the_clients_request_id_is_in_answer_log_and_problem(client, caplog, red_square_png):
    head = {"X-Request-Id": "line-7.part-12"}

    with caplog.at_level(logging.INFO, "service"):
        answer = client.post("/detect", files={"image": red_square_png}, headers=head)
        refusal = client.post("/detect", files={"image": b"?"}, headers=head)

    assert answer.headers["x-request-id"] == answer.json()["id"] == "line-7.part-12"
    assert refusal.json()["instance"].endswith("line-7.part-12")
    lines = [record.fields for record in caplog.records if record.message == "request"]
    assert [line["id"] for line in lines] == ["line-7.part-12"] * 2
    assert [line["status"] for line in lines] == [200, 415]
    assert (lines[0]["product"], lines[0]["verdict"]) == ("tiny", "ng")
    assert lines[1]["code"] == "unsupported_media_type"


def test_unknown_addresses_share_one_metric(client):
    for path in ("/a", "/b", "/detect/"):
        assert client.get(path).status_code == 404

    text = client.get("/metrics").text
    assert 'flawsmith_requests_total{product="",route="unmatched",status="404"} 3.0' in text
    assert "/detect/" not in text


def test_a_route_is_counted_by_its_template(client):
    client.get("/v2/models/tiny/versions/9")

    line = 'route="/v2/models/{product}/versions/{version}",status="200"'
    assert line in client.get("/metrics").text


def test_the_description_names_bodies_and_problems(client):
    paths = client.get("/openapi.json").json()["paths"]

    for path, parts in {"/detect": {"image"}, "/synthesize": {"image", "mask"}}.items():
        call = paths[path]["post"]
        content = call["requestBody"]["content"]
        assert set(content["multipart/form-data"]["schema"]["properties"]) == parts
        assert "image/jpeg" in content
        assert {"401", "404", "413", "415", "422", "429", "503", "504"} <= set(call["responses"])
        assert set(call["responses"]["422"]["content"]) == {"application/problem+json"}


def test_the_description_can_be_read_by_people(client):
    assert client.get("/docs").headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_for_people_loads_nothing_from_another_network(client, page):
    loaded = re.findall(r'(?:src|href)="([^"]+)"', client.get(page).text)

    assert len(loaded) >= 2
    assert [path for path in loaded if not path.startswith("/")] == []
    assert {client.get(path).status_code for path in loaded} == {200}


PREFLIGHT = {
    "Origin": "https://mes.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key,content-type,x-request-id",
}


def test_a_page_of_another_origin_may_not_ask_unless_it_is_named(serve):
    for client in (serve(), serve(cors_origins="https://other.example")):
        asked = client.options("/detect", headers=PREFLIGHT)
        answer = client.get("/v2", headers={"Origin": "https://mes.example"})

        assert asked.status_code in (400, 405)
        assert "access-control-allow-origin" not in answer.headers


def test_a_named_origin_may_ask_and_read_the_problems_too(serve):
    client = serve(cors_origins="https://mes.example")

    asked = client.options("/detect", headers=PREFLIGHT)
    answer = client.post("/detect", headers={"Origin": "https://mes.example"})

    assert asked.status_code == 200
    assert answer.status_code == 415
    for one in (asked, answer):
        assert one.headers["access-control-allow-origin"] == "https://mes.example"
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


def test_the_version_is_a_word():
    assert installed_version()
