from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.errors import InputError, PictureFormatUnknown, PictureTooLarge, PictureUnreadable
from models.steps.pictures import (
    Picture,
    PictureLimits,
    check_header,
    decode_mask,
    decode_picture,
    encode_jpeg,
    encode_png,
)

LIMITS = PictureLimits()
ORIENTATION_TAG = 274


def colours(dtype: type = np.uint8, hw: tuple[int, int] = (12, 20)) -> NDArray[Any]:
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(dtype).max, (*hw, 3), dtype, endpoint=True)


def smooth_colours() -> NDArray[np.uint8]:
    return cv2.resize(colours(hw=(6, 8)), (64, 48), interpolation=cv2.INTER_CUBIC)


def write(pixels: Image.Image | NDArray[Any], file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, file_format, **options)
    return file.getvalue()


def write_tiff(pixels: NDArray[Any], compression: int) -> bytes:
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    return cv2.imencode(".tiff", np.ascontiguousarray(stored), options)[1].tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def write_png(
    hw: tuple[int, int], depth: int, colour: int, packed: bytes, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", hw[1], hw[0], depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", packed)
        + png_chunk(b"IEND", b"")
    )


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return exif


def stored_files() -> dict[str, bytes]:
    """One file of every way a picture is stored."""
    rgb, grey = smooth_colours(), smooth_colours()[..., 0]
    return {
        "jpeg": encode_jpeg(rgb),
        "jpeg_grey": encode_jpeg(grey),
        "jpeg_progressive": write(rgb, "JPEG", progressive=True, exif=oriented(6)),
        "png": encode_png(rgb),
        "png16": encode_png(rgb.astype(np.uint16) * 201),
        "png_palette": write(Image.fromarray(rgb).convert("P"), "PNG"),
        "bmp": write(rgb, "BMP"),
        "bmp_grey": write(grey, "BMP"),
        "tiff": write(rgb, "TIFF"),
        "tiff_lzw": write(rgb, "TIFF", compression="tiff_lzw"),
        "tiff_deflate": write(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff_palette": write(Image.fromarray(rgb).convert("P"), "TIFF", compression="packbits"),
        "tiff16": write_tiff(rgb.astype(np.uint16) * 201, compression=8),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("is_grey", [True, False])
def test_png_gives_back_every_pixel_depth_and_channel(dtype: type, is_grey: bool) -> None:
    pixels = colours(dtype)[..., 0] if is_grey else colours(dtype)

    decoded = decode_picture(encode_png(pixels), LIMITS).pixels

    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("is_grey", [True, False])
def test_tiff_is_decoded_exactly(compression: int, dtype: type, is_grey: bool) -> None:
    pixels = colours(dtype)[..., 0] if is_grey else colours(dtype)

    decoded = decode_picture(write_tiff(pixels, compression), LIMITS).pixels

    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("is_grey", [True, False])
def test_bmp_is_decoded_exactly(is_grey: bool) -> None:
    pixels = colours()[..., 0] if is_grey else colours()

    decoded = decode_picture(write(pixels, "BMP"), LIMITS).pixels

    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_palette_becomes_its_colours(file_format: str) -> None:
    image = Image.fromarray(colours()).quantize(16)

    decoded = decode_picture(write(image, file_format), LIMITS).pixels

    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(file_format: str) -> None:
    is_white = colours()[..., 0] > 127

    decoded = decode_picture(write(Image.fromarray(is_white), file_format), LIMITS).pixels

    np.testing.assert_array_equal(decoded, is_white * np.uint8(255))


def test_a_jpeg_stays_close_to_what_was_encoded() -> None:
    pixels = smooth_colours()

    decoded = decode_picture(encode_jpeg(pixels, quality=95), LIMITS).pixels

    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 2


def test_a_grey_jpeg_stays_grey() -> None:
    decoded = decode_picture(encode_jpeg(smooth_colours()[..., 0]), LIMITS).pixels

    assert decoded.shape == (48, 64)


@pytest.mark.parametrize("name", stored_files())
def test_pixels_are_contiguous_and_writeable(name: str) -> None:
    pixels = decode_picture(stored_files()[name], LIMITS).pixels

    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_every_orientation_is_turned_upright(file_format: str, orientation: int) -> None:
    file = write(smooth_colours(), file_format, exif=oriented(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))

    decoded = decode_picture(file, LIMITS)

    assert decoded.hw == upright.shape[:2]
    np.testing.assert_array_equal(decoded.pixels, upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_tiffs_are_turned_upright_too(orientation: int) -> None:
    grey = colours(np.uint16)[..., 0]
    stored = write(grey, "TIFF", tiffinfo={ORIENTATION_TAG: orientation})
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stored))))

    np.testing.assert_array_equal(decode_picture(stored, LIMITS).pixels, upright)


@pytest.mark.parametrize("exif", [b"junk", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\xff"])
def test_broken_exif_does_not_fail_a_good_picture(exif: bytes) -> None:
    pixels = smooth_colours()

    decoded = decode_picture(write(pixels, "PNG", exif=exif), LIMITS).pixels
    decoded_jpeg = decode_picture(write(pixels, "JPEG", exif=b"Exif\0\0" + exif), LIMITS)

    np.testing.assert_array_equal(decoded, pixels)
    assert decoded_jpeg.hw == pixels.shape[:2]


def test_a_tiff_with_zero_for_white_is_inverted() -> None:
    grey8, grey16 = colours()[..., 0], colours(np.uint16)[..., 0]
    white_is_zero = {262: 0}

    decoded8 = decode_picture(write(grey8, "TIFF", tiffinfo=white_is_zero), LIMITS).pixels
    black_is_zero = write(grey16, "TIFF")
    at = black_is_zero.index(struct.pack("<HHI", 262, 3, 1)) + 8
    file16 = black_is_zero[:at] + b"\0" + black_is_zero[at + 1 :]
    decoded16 = decode_picture(file16, LIMITS).pixels

    # Pillow inverts an 8-bit picture when it writes one with zero for white
    np.testing.assert_array_equal(decoded8, grey8)
    np.testing.assert_array_equal(decoded16, 65535 - grey16)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_channel_is_dropped(file_format: str, mode: str) -> None:
    opaque = Image.fromarray(colours()).convert(mode)

    decoded = decode_picture(write(opaque, file_format), LIMITS).pixels

    np.testing.assert_array_equal(decoded, np.asarray(opaque.convert(mode[:-1])))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_transparent_picture_is_refused(file_format: str, mode: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    image.putalpha(254)

    with pytest.raises(PictureUnreadable, match="transparent"):
        decode_picture(write(image, file_format), LIMITS)


def test_a_see_through_grey_refuses_only_a_picture_that_uses_it() -> None:
    grey = np.full((12, 20), 7, np.uint8)

    decoded = decode_picture(write(grey, "PNG", transparency=8), LIMITS).pixels

    np.testing.assert_array_equal(decoded, grey)
    with pytest.raises(PictureUnreadable, match="transparent"):
        decode_picture(write(grey, "PNG", transparency=7), LIMITS)


def test_of_several_pictures_in_one_jpeg_file_the_first_is_taken() -> None:
    first, second = smooth_colours(), smooth_colours()[::2]
    file = write(first, "MPO", save_all=True, append_images=[Image.fromarray(second)])

    assert decode_picture(file, LIMITS).hw == (48, 64)


def test_a_view_of_bytes_is_taken_like_bytes() -> None:
    file = encode_png(colours())

    decoded = decode_picture(memoryview(b"xx" + file)[2:], LIMITS).pixels

    np.testing.assert_array_equal(decoded, colours())


def test_an_empty_file_is_named_empty() -> None:
    with pytest.raises(PictureFormatUnknown, match="empty; JPEG, PNG, BMP and TIFF"):
        decode_picture(b"", LIMITS)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP"])
def test_other_formats_are_refused_by_content(file_format: str) -> None:
    with pytest.raises(PictureFormatUnknown, match="JPEG, PNG, BMP and TIFF"):
        decode_picture(write(colours(), file_format), LIMITS)


@pytest.mark.parametrize(
    ("limits", "figures"),
    [
        (PictureLimits(max_bytes=100), "bytes; at most 100"),
        (PictureLimits(max_pixels=239), "20 x 12 = 240 pixels; at most 239"),
        (PictureLimits(max_side_px=19), "20 px; at most 19"),
    ],
)
def test_too_large_names_both_figures(limits: PictureLimits, figures: str) -> None:
    with pytest.raises(PictureTooLarge, match=figures):
        decode_picture(encode_png(colours()), limits)


def test_a_picture_at_the_limits_is_taken() -> None:
    file = encode_png(colours())
    limits = PictureLimits(max_bytes=len(file), max_pixels=240, max_side_px=20)

    assert decode_picture(file, limits).hw == (12, 20)


def bomb_png() -> bytes:
    packed = zlib.compress(bytes(30_000 * 30_001), level=1)
    return write_png((30_000, 30_000), 8, 0, packed)


def bomb_tiff() -> bytes:
    tags = [(256, 30_000), (257, 30_000), (258, 8), (259, 8), (262, 1), (273, 8), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + directory


@pytest.mark.parametrize("bomb", [bomb_png, bomb_tiff])
def test_a_bomb_is_refused_from_its_header(bomb: Callable[[], bytes]) -> None:
    file = bomb()
    tracemalloc.start()
    start_s = time.perf_counter()

    with pytest.raises(PictureTooLarge, match="30000 x 30000 = 900000000 pixels"):
        decode_picture(file, LIMITS)

    took_s = time.perf_counter() - start_s
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < 0.1
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (write(Image.new("CMYK", (8, 8)), "JPEG"), "CMYK"),
        (write(Image.new("CMYK", (8, 8)), "TIFF"), "grey, RGB and palette"),
        (write(Image.new("LAB", (8, 8)), "TIFF"), "grey, RGB and palette"),
        (write(Image.new("F", (8, 8)), "TIFF"), "8 or 16 bits"),
        (write(Image.new("I", (8, 8)), "TIFF"), "8 or 16 bits"),
        (write(colours(), "TIFF", compression="jpeg"), "no compression, LZW"),
        (write(colours(), "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))]), "pages"),
        (
            write(colours(), "PNG", save_all=True, append_images=[Image.new("RGB", (20, 12))]),
            "anim",
        ),
    ],
)
def test_kinds_that_are_not_taken_are_refused_with_the_reason(file: bytes, why: str) -> None:
    with pytest.raises(PictureUnreadable, match=why):
        decode_picture(file, LIMITS)


@pytest.mark.parametrize("name", stored_files())
def test_a_file_cut_short_anywhere_is_refused(name: str) -> None:
    file = stored_files()[name]

    for size in {*range(0, len(file), max(1, len(file) // 60)), len(file) - 1}:
        with pytest.raises(InputError):
            decode_picture(file[:size], LIMITS)


def test_a_png_short_of_rows_is_refused_though_every_checksum_fits() -> None:
    packed = zlib.compress(bytes(13 * 6))

    with pytest.raises(PictureUnreadable):
        decode_picture(write_png((12, 12), 8, 0, packed), LIMITS)


def test_an_8_bit_tiff_short_of_rows_is_refused_not_blackened() -> None:
    file = bytearray(write(colours(), "TIFF", compression="tiff_adobe_deflate"))
    at = file.index(struct.pack("<HHI", 279, 4, 1)) + 8
    (size_bytes,) = struct.unpack_from("<I", file, at)
    struct.pack_into("<I", file, at, size_bytes // 2)

    with pytest.raises(PictureUnreadable):
        decode_picture(bytes(file), LIMITS)


def test_a_tiff_short_of_strips_is_refused_not_blackened() -> None:
    file = write(colours(), "TIFF")
    one_strip = struct.pack("<HHII", 278, 4, 1, 12)
    assert one_strip in file

    with pytest.raises(PictureUnreadable, match="missing"):
        decode_picture(file.replace(one_strip, struct.pack("<HHII", 278, 4, 1, 4)), LIMITS)


@pytest.mark.parametrize("name", stored_files())
def test_corrupt_bytes_raise_nothing_but_our_errors(name: str) -> None:
    file = stored_files()[name]
    rng = np.random.default_rng(7)
    refused = 0

    for trial in range(200):
        mutated = bytearray(file)
        reach = len(file) if trial % 2 else min(len(file), 200)
        for at in rng.integers(0, reach, 1 + trial % 3):
            mutated[at] ^= int(rng.integers(1, 256))
        try:
            pixels = decode_picture(bytes(mutated), PictureLimits(max_pixels=1_000_000)).pixels
        except InputError:
            refused += 1
        else:
            assert pixels.dtype in (np.uint8, np.uint16)
            assert pixels.ndim == 2 or pixels.shape[2:] == (3,)

    assert refused > 0


def test_a_tiff_of_giant_tiles_is_refused_before_memory_is_taken() -> None:
    tags = [
        (256, 9),
        (257, 9),
        (258, 8),
        (262, 1),
        (322, 65_536),
        (323, 65_536),
        (324, 8),
        (325, 9),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<I", 24) + bytes(16) + struct.pack("<H", 8) + entries + bytes(4)

    with pytest.raises(PictureUnreadable, match="tile"):
        check_header(file, LIMITS)


def test_a_mask_is_true_where_any_channel_is_not_zero() -> None:
    pixels = np.zeros((5, 6, 3), np.uint8)
    pixels[1, 2, 0] = pixels[2, 3, 1] = pixels[3, 4, 2] = 1

    mask = decode_mask(encode_png(pixels), LIMITS)

    assert np.argwhere(mask).tolist() == [[1, 2], [2, 3], [3, 4]]


def test_a_mask_comes_back_from_png_as_it_was() -> None:
    mask = colours()[..., 0] > 127

    file = encode_png(mask)

    np.testing.assert_array_equal(decode_mask(file, LIMITS), mask)
    np.testing.assert_array_equal(decode_picture(file, LIMITS).pixels, mask * np.uint8(255))


def test_16_bits_become_8_by_rounding() -> None:
    every = np.arange(65_536, dtype=np.uint16).reshape(256, 256)

    rgb = Picture(every).as_rgb8()

    nearest = np.rint(every / 257).astype(np.uint8)
    np.testing.assert_array_equal(rgb, np.dstack([nearest] * 3))


def test_8_bit_colour_is_its_own_rgb() -> None:
    picture = Picture(colours())

    assert picture.as_rgb8() is picture.pixels


def test_white_is_the_brightest_sample() -> None:
    assert Picture(colours()).white == 255
    assert Picture(colours(np.uint16)).white == 65535
