"""PNG: what is converted is exact, what is not whole or not exact is refused."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.rejects import Rejected
from components.images.formats import MAX_PIXELS, PNG_SIGNATURE
from components.images.png import METADATA_LIMIT, decode_png

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width, height, depth=8, colour=RGB, interlace=0) -> bytes:
    return PNG_SIGNATURE + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    )


def scanlines(samples: np.ndarray, depth: int) -> bytes:
    """Unfiltered scanlines of samples (H, W, C)."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    elif depth == 8:
        rows = [row.astype("u1").tobytes() for row in samples]
    else:
        bits = (samples[..., 0][..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = [row.tobytes() for row in np.packbits(bits.reshape(len(samples), -1).astype("u1"), axis=1)]
    return b"".join(b"\0" + row for row in rows)


def png(samples: np.ndarray, colour=RGB, depth=8, interlace=0, before=b"", after=b"", parts=1) -> bytes:
    """A PNG written by hand; `before` and `after` are chunks around the pixel data."""
    passes = ADAM7 if interlace else [(0, 0, 1, 1)]
    parts_of = [samples[y::dy, x::dx] for x, y, dx, dy in passes]
    packed = zlib.compress(b"".join(scanlines(part, depth) for part in parts_of if part.size))
    cuts = [len(packed) * i // parts for i in range(parts + 1)]
    pixel_data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
    height, width = samples.shape[:2]
    return header(width, height, depth, colour, interlace) + before + pixel_data + after + chunk(b"IEND", b"")


def samples(colour=RGB, depth=8, height=13, width=17, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << depth, (height, width, CHANNELS[colour]))


def decode(data: bytes) -> np.ndarray:
    pixels = decode_png(data, MAX_PIXELS)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    return pixels


def code_of(data: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        decode(data)
    return caught.value.code


SMOOTH = (np.add.outer(np.arange(24), np.arange(24))[..., None] * [3, 4, 5]).astype(np.uint8)
PLAIN = png(SMOOTH, before=chunk(b"tIME", bytes(7)), parts=2)


@pytest.mark.parametrize("interlace", [0, 1])
def test_rgb8(interlace):
    pixels = samples()
    np.testing.assert_array_equal(decode(png(pixels, interlace=interlace)), pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_agrees_with_pillow_on_what_pillow_writes(mode):
    file = io.BytesIO()
    image = Image.fromarray(SMOOTH).convert(mode)
    image.save(file, "PNG")
    np.testing.assert_array_equal(decode(file.getvalue()), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_is_scaled_to_255_and_repeated(depth, interlace):
    grey = samples(GREY, depth)
    expected = np.repeat(grey * (255 // ((1 << depth) - 1)), 3, axis=2)
    np.testing.assert_array_equal(decode(png(grey, GREY, depth, interlace)), expected)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_is_looked_up(depth, interlace):
    table = np.random.default_rng(1).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
    indices = samples(PALETTE, depth)
    data = png(indices, PALETTE, depth, interlace, before=chunk(b"PLTE", table.tobytes()))
    np.testing.assert_array_equal(decode(data), table[indices[..., 0]])


def test_index_outside_the_palette_is_refused():
    table = np.zeros((10, 3), np.uint8)
    indices = np.arange(9, 11).reshape(1, 2, 1)
    assert code_of(png(indices, PALETTE, before=chunk(b"PLTE", table.tobytes()))) == "truncated"
    assert decode(png(indices - 1, PALETTE, before=chunk(b"PLTE", table.tobytes()))).shape == (1, 2, 3)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [GREY_ALPHA, RGBA])
def test_opaque_alpha_is_dropped_and_any_other_refused(colour, depth):
    pixels = samples(colour) * (257 if depth == 16 else 1)
    pixels[..., -1] = (1 << depth) - 1
    decoded = decode(png(pixels, colour, depth))
    np.testing.assert_array_equal(
        decoded, (pixels // (257 if depth == 16 else 1))[..., :-1] * np.ones(3, int)
    )
    pixels[3, 4, -1] -= 257 if depth == 16 else 1
    assert code_of(png(pixels, colour, depth)) == "unsupported"


def test_transparent_colour_counts_only_where_it_is_used():
    pixels = samples()
    pixels[5, 6] = (1, 2, 3)
    pixels[..., 0][(pixels == (7, 7, 7)).all(axis=2)] = 8
    used = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    unused = chunk(b"tRNS", struct.pack(">3H", 7, 7, 7))
    assert code_of(png(pixels, before=used)) == "unsupported"
    np.testing.assert_array_equal(decode(png(pixels, before=unused)), pixels)


def test_transparent_palette_entry_is_refused_where_used():
    table = chunk(b"PLTE", bytes(range(30)))
    indices = np.array([[[1], [2]]])
    assert code_of(png(indices, PALETTE, before=table + chunk(b"tRNS", b"\xff\xff\x80"))) == "unsupported"
    data = png(indices, PALETTE, before=table + chunk(b"tRNS", b"\x00\xff\xff"))
    np.testing.assert_array_equal(decode(data), [[[3, 4, 5], [6, 7, 8]]])


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("colour", [GREY, RGB])
def test_16_bit_is_converted_only_where_exact(colour, interlace):
    eight = samples(colour)
    np.testing.assert_array_equal(decode(png(eight * 257, colour, 16, interlace)), eight * np.ones(3, int))
    deep = eight * 257
    deep[0, 0, 0] ^= 1
    assert code_of(png(deep, colour, 16, interlace)) == "unsupported"


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_rotated_images_are_refused(orientation, order, place):
    exif = b"II*\0" if order == "<" else b"MM\0*"
    exif += struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    data = png(SMOOTH, **{place: chunk(b"eXIf", exif)})
    if orientation in (0, 1):
        np.testing.assert_array_equal(decode(data), SMOOTH)
    else:
        assert code_of(data) == "unsupported"


def test_exif_that_pillow_writes_and_exif_that_nobody_can_read():
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "PNG", exif=exif)
    assert code_of(file.getvalue()) == "unsupported"
    assert code_of(png(SMOOTH, before=chunk(b"eXIf", b"hello"))) == "unsupported"
    assert code_of(png(SMOOTH, before=chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"))) == "unsupported"


def test_animation_is_refused():
    file = io.BytesIO()
    frames = [Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert code_of(file.getvalue()) == "unsupported"


def test_colour_management_is_not_applied():
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1000)))
    np.testing.assert_array_equal(decode(png(SMOOTH, before=gamma + profile)), SMOOTH)


def test_bytes_behind_the_image_are_ignored():
    np.testing.assert_array_equal(decode(PLAIN + b"anything"), SMOOTH)


def test_more_pixel_data_than_needed_is_ignored():
    body = chunk(b"IDAT", zlib.compress(scanlines(SMOOTH, 8) + bytes(100)))
    np.testing.assert_array_equal(decode(header(24, 24) + body + chunk(b"IEND", b"")), SMOOTH)


def test_every_cut_is_refused():
    for end in range(1, len(PLAIN)):
        assert code_of(PLAIN[:end]) == "truncated", end


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("colour, depth", [(RGB, 8), (GREY, 8), (GREY, 1), (RGBA, 8), (RGB, 16)])
def test_pixel_data_that_ends_early_behind_valid_checksums_is_refused(colour, depth, interlace):
    height, width = 13, 17
    raw = scanlines(samples(colour, depth, height, width), depth)
    data = header(width, height, depth, colour, interlace) + chunk(
        b"IDAT", zlib.compress(raw[: len(raw) // 2])
    )
    assert code_of(data + chunk(b"IEND", b"")) == "truncated"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(PLAIN) - 1), st.integers(1, 255))
def test_every_flipped_byte_is_noticed(position, flip):
    damaged = bytearray(PLAIN)
    damaged[position] ^= flip
    code_of(bytes(damaged))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_behind_valid_checksums_never_crashes(data):
    colour, depth = data.draw(st.sampled_from([(RGB, 8), (GREY, 4), (PALETTE, 8), (RGBA, 16)]))
    body = bytearray(zlib.compress(scanlines(samples(colour, depth), depth)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    palette = chunk(b"PLTE", bytes(data.draw(st.integers(0, 40)))) if colour == PALETTE else b""
    file = header(17, 13, depth, colour, data.draw(st.integers(0, 1))) + palette + chunk(b"IDAT", bytes(body))
    try:
        decode(file + chunk(b"IEND", b""))
    except Rejected:
        pass


def test_wrong_adler32_is_refused():
    packed = zlib.compress(scanlines(SMOOTH, 8))
    body = chunk(b"IDAT", packed[:-4] + bytes(4))
    assert code_of(header(24, 24) + body + chunk(b"IEND", b"")) == "truncated"


@pytest.mark.parametrize(
    "fields",
    [(0, 5, 8, RGB), (5, 0, 8, RGB), (5, 5, 3, RGB), (5, 5, 8, 5), (5, 5, 8, RGB, 2), (5, 5, 16, PALETTE)],
)
def test_impossible_headers(fields):
    data = header(*fields) + chunk(b"IDAT", zlib.compress(bytes(200))) + chunk(b"IEND", b"")
    assert code_of(data) == "not_an_image"


def test_first_chunk_must_be_the_header():
    assert code_of(PNG_SIGNATURE + chunk(b"tEXt", b"a\0b") + PLAIN[8:]) == "not_an_image"


def test_unknown_critical_chunk_is_refused():
    code_of(png(SMOOTH, before=chunk(b"FOOO", b"")))


def test_bomb_by_declared_size_needs_no_decoding(monkeypatch):
    monkeypatch.setattr("components.images.png.pyspng.load", lambda data: pytest.fail("decoded"))
    monkeypatch.setattr(imagecodecs, "png_decode", lambda data: pytest.fail("decoded"))
    for depth, colour in ((8, RGB), (1, GREY), (16, RGBA)):
        data = header(60000, 60000, depth, colour) + chunk(b"IDAT", zlib.compress(bytes(100)))
        assert code_of(data + chunk(b"IEND", b"")) == "bomb"
    with pytest.raises(Rejected, match="bomb"):
        decode_png(PLAIN, max_pixels=24 * 24 - 1)


def test_real_bomb_of_a_few_kilobytes():
    side = 10000
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    data = header(side, side, 1, GREY) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert len(data) < 20_000
    assert code_of(data) == "bomb"


BOMB = zlib.compress(bytes(METADATA_LIMIT + 1), 9)


@pytest.mark.parametrize(
    "kind, prefix", [(b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0en\0key\0")]
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_metadata_bombs(kind, prefix, place):
    assert code_of(png(SMOOTH, **{place: chunk(kind, prefix + BOMB)})) == "bomb"
    half = chunk(kind, prefix + zlib.compress(bytes(METADATA_LIMIT // 2 + 1)))
    assert code_of(png(SMOOTH, **{place: half * 2})) == "bomb"
    np.testing.assert_array_equal(decode(png(SMOOTH, **{place: half})), SMOOTH)


def test_plain_and_unreadable_text_is_no_obstacle():
    text = chunk(b"iTXt", b"k\0\0\0en\0key\0" + bytes(METADATA_LIMIT * 2)) + chunk(
        b"zTXt", b"k\0\0not deflate"
    )
    np.testing.assert_array_equal(decode(png(SMOOTH, before=text)), SMOOTH)


def test_decoding_many_files_needs_no_more_memory():
    import psutil

    process = psutil.Process()
    odd = png(samples(RGBA, 8, 64, 64) | [0, 0, 0, 255], RGBA)
    cut = png(samples(RGB, 8, 64, 64))[:-40]
    plain = png(samples(RGB, 8, 64, 64))

    def work(rounds):
        for _ in range(rounds):
            decode(plain)
            decode(odd)
            code_of(cut)
            code_of(header(64, 64) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))

    work(200)
    before = process.memory_info().rss
    work(1000)  # 12 to 16 kB each: a leak would show as 12 MB or more
    assert process.memory_info().rss - before < 6 << 20
