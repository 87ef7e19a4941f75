"""Upload -> bytes -> pixels, each within limits: never more in memory than one request may send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from models.arrays import Mask
from models.errors import (
    InputError,
    ParameterInvalid,
    PictureFormatUnknown,
    PictureTooLarge,
    PictureUnreadable,
)
from models.manifest import Limits
from models.steps.pictures import (
    Picture,
    PictureLimits,
    check_header,
    decode_mask,
    decode_picture,
)
from service.settings import Settings

PICTURES_TAKEN = (
    "A JPEG, PNG, BMP or TIFF file, 8 or 16 bits, grey or colour. 16-bit files must span 0..65535: "
    "12-bit data in the low bits looks black."
)
IN_MEMORY = {"MAX_MEMORY_FILE_SIZE": float("inf")}
RAW_TYPES = ("image/", "application/octet-stream")


class ImageMissing(InputError):
    """The body holds no image: another content type, a broken form, or no part of that name."""


@dataclass(frozen=True)
class Upload:
    """What a request sent, still encoded, within the byte limit."""

    image: bytes
    mask: bytes | None = None

    def picture(self, limits: PictureLimits) -> Picture:
        """The upright picture; its header is checked before a pixel is decoded. Blocking."""
        with _named("image"):
            return decode_picture(self.image, limits)

    def decoded_bytes(self, limits: PictureLimits) -> int:
        """The memory that its pictures will take, by their headers. Errors: the decoders'."""
        with _named("image"):
            decoded_bytes = check_header(self.image, limits).decoded_bytes
        if self.mask is None:
            return decoded_bytes
        with _named("mask"):
            return decoded_bytes + check_header(self.mask, limits).decoded_bytes

    def decoded_mask(self, limits: PictureLimits) -> Mask | None:
        """The client's mask, None when it sent none. Blocking."""
        if self.mask is None:
            return None
        with _named("mask"):
            return decode_mask(self.mask, limits)


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Errors of a decoder say which part of the request they are about."""
    try:
        yield
    except (PictureFormatUnknown, PictureTooLarge, PictureUnreadable) as error:
        raise type(error)(f"{part}: {error}") from error


def picture_limits(settings: Settings, bundle: Limits) -> PictureLimits:
    """What this deployment and this bundle both take."""
    return PictureLimits(
        max_bytes=settings.max_bytes,
        max_pixels=min(settings.max_pixels, bundle.max_pixels),
        max_side_px=settings.max_side_px,
        max_side_ratio=settings.max_side_ratio,
    )


def body_schema(*parts: str) -> dict[str, Any]:
    """OpenAPI's description of a body that `read_upload` reads with these parts."""
    file = {"type": "string", "format": "binary"}
    form: dict[str, Any] = {
        "type": "object",
        "required": ["image"],
        "properties": dict.fromkeys(parts, file),
    }
    raw_types = ("image/jpeg", "image/png", "image/bmp", "image/tiff", "application/octet-stream")
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {media_type: {"schema": file} for media_type in raw_types}
    return {"requestBody": {"description": PICTURES_TAKEN, "required": True, "content": content}}


async def read_upload(request: Request, parts: tuple[str, ...], max_bytes: int) -> Upload:
    """Read the body, as a form with these parts (`image` first) or as the bare image.

    The content type only says which of the two it is; what the bytes are, their first bytes say.
    A part counts with and without a file name, for not every client sends one.

    Errors: PictureTooLarge as soon as max_bytes are passed, before the rest is read;
    ImageMissing; ParameterInvalid for a part that is sent twice or has no use here.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    chunks = bounded_chunks(request, max_bytes)
    if content_type == b"multipart/form-data":
        return await _read_form(chunks, options.get(b"boundary"), parts)
    if content_type.decode("latin-1").startswith(RAW_TYPES):
        return Upload(b"".join([chunk async for chunk in chunks]))
    raise ImageMissing("send multipart/form-data with a part `image`, or the image as the body")


async def bounded_chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body's chunks, at most max_bytes of them together. Errors: PictureTooLarge."""
    announced = request.headers.get("content-length", "0")
    received = int(announced) if announced.isdecimal() else 0
    if received > max_bytes:
        _refuse_size(max_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            _refuse_size(max_bytes)
        yield chunk


def _refuse_size(max_bytes: int) -> NoReturn:
    raise PictureTooLarge(f"the body has more than {max_bytes} bytes")


async def _read_form(
    chunks: AsyncIterator[bytes], boundary: bytes | None, parts: tuple[str, ...]
) -> Upload:
    found: dict[str, bytes] = {}
    keep = _part_keeper(found, parts)
    try:
        parser = FormParser("multipart/form-data", keep, keep, boundary=boundary, config=IN_MEMORY)
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ImageMissing("the multipart body is malformed") from error
    if "image" not in found:
        raise ImageMissing("the form has no part `image`")
    return Upload(found["image"], found.get("mask"))


def _part_keeper(found: dict[str, bytes], parts: tuple[str, ...]) -> Callable[[Field | File], None]:
    """A function that takes each finished part into `found`, or refuses it."""

    def keep(part: Field | File) -> None:
        name = (part.field_name or b"").decode("latin-1")
        if name not in parts:
            known = ", ".join(parts)
            raise ParameterInvalid(name[:64], f"is no part of this form; known parts: {known}")
        if name in found:
            raise ParameterInvalid(name, "is sent twice")
        found[name] = _content(part)

    return keep


def _content(part: Field | File) -> bytes:
    if isinstance(part, Field):
        return part.value or b""
    return part.file_object.getvalue() if isinstance(part.file_object, BytesIO) else b""
