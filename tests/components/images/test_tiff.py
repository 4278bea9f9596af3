"""TIFF: what is converted is exact, what is not whole or not exact is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.rejects import Rejected
from components.images import tiff as tiff_module
from components.images.formats import MAX_PIXELS
from components.images.tiff import decode_tiff

SMOOTH = (np.add.outer(np.arange(40), np.arange(48))[..., None] * [1, 2, 2] + 9).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
SHORT, LONG = 3, 4


def tiff(pixels=NOISE, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "rgb", "metadata": None} | options)
    return file.getvalue()


def plain(changes=None, extra=(), pixels=NOISE, following=0) -> bytes:
    """A TIFF written by hand in the layout of PCam: directory first, one strip behind it.

    Args:
        changes: Tag -> (type, count, value) to replace, or None to leave out.
        extra: Further (tag, type, count, value).
    """
    height, width, _ = pixels.shape
    entries = {
        254: (LONG, 1, 0), 256: (LONG, 1, width), 257: (LONG, 1, height), 258: (SHORT, 3, -1),
        259: (SHORT, 1, 1), 262: (SHORT, 1, 2), 273: (LONG, 1, -2), 277: (SHORT, 1, 3),
        278: (LONG, 1, height), 279: (LONG, 1, pixels.size), 284: (SHORT, 1, 1), 339: (SHORT, 1, 1),
    }  # fmt: skip
    entries |= changes or {}
    rows = sorted([(tag, *entry) for tag, entry in entries.items() if entry] + [tuple(entry) for entry in extra])
    bits = 8 + 2 + 12 * len(rows) + 4
    where = {-1: bits, -2: bits + 6}
    directory = b"".join(struct.pack("<HHII", *row[:3], where.get(row[3], row[3])) for row in rows)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(rows)) + directory + struct.pack("<I", following)
    return head + struct.pack("<3H", 8, 8, 8) + pixels.tobytes()


def decode(data: bytes) -> np.ndarray:
    pixels = decode_tiff(data, MAX_PIXELS)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    return pixels


def code_of(data: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        decode(data)
    return caught.value.code


@pytest.fixture
def no_tifffile(monkeypatch):
    """Proves that a file took the fast way."""
    monkeypatch.setattr(tiff_module, "_decode_odd", lambda data: pytest.fail("not taken as plain"))


def test_plain_patch_needs_no_decoder(no_tifffile):
    np.testing.assert_array_equal(decode(plain()), NOISE)
    np.testing.assert_array_equal(decode(plain({274: (SHORT, 1, 1), 339: None, 284: None})), NOISE)


LOSSLESS = {
    "tifffile": {},
    "big endian": {"byteorder": ">"},
    "lzw": {"compression": "lzw"},
    "lzw and predictor": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "deflate and predictor": {"compression": "zlib", "predictor": True},
    "packbits": {"compression": "packbits"},
    "strips": {"rowsperstrip": 7},
    "strips lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "tiles": {"tile": (16, 16)},
    "tiles that do not fit": {"tile": (32, 32)},
    "tiles deflate": {"tile": (32, 32), "compression": "zlib"},
    "big endian lzw predictor": {"byteorder": ">", "compression": "lzw", "predictor": True},
}


@pytest.mark.parametrize("options", LOSSLESS.values(), ids=LOSSLESS)
@pytest.mark.parametrize("pixels", [NOISE, SMOOTH], ids=["noise", "smooth"])
def test_lossless_layouts(options, pixels):
    np.testing.assert_array_equal(decode(tiff(pixels, **options)), pixels)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_planes(compression):
    planes = np.ascontiguousarray(np.moveaxis(NOISE, -1, 0))
    data = tiff(planes, planarconfig="separate", compression=compression)
    np.testing.assert_array_equal(decode(data), NOISE)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_jpeg_agrees_with_pillow(subsampling, tile):
    data = tiff(SMOOTH, compression="jpeg", subsampling=subsampling, tile=tile)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    assert np.abs(expected.astype(int) - SMOOTH).max() < 40


def test_jpeg_stored_as_rgb_agrees_with_pillow():
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "TIFF", compression="jpeg")
    with Image.open(io.BytesIO(file.getvalue())) as image:
        np.testing.assert_array_equal(decode(file.getvalue()), np.asarray(image))


def test_grey_is_repeated_and_inverted_where_white_is_zero():
    grey = NOISE[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(tiff(grey, photometric="minisblack")), expected)
    np.testing.assert_array_equal(decode(tiff(grey, photometric="miniswhite")), 255 - expected)


def test_grey_16_bit_white_is_zero():
    grey = NOISE[..., 0]
    data = tiff(grey.astype(np.uint16) * 257, photometric="miniswhite")
    np.testing.assert_array_equal(decode(data)[..., 0], 255 - grey)


@pytest.mark.parametrize("scale", [256, 257])
def test_palette(scale):
    table = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    data = tiff(NOISE[..., 0], photometric="palette", colormap=table * scale)
    np.testing.assert_array_equal(decode(data), table.T[NOISE[..., 0]])


def test_palette_that_pillow_writes():
    image = Image.fromarray(SMOOTH).quantize(50)
    file = io.BytesIO()
    image.save(file, "TIFF")
    np.testing.assert_array_equal(decode(file.getvalue()), np.asarray(image.convert("RGB")))


def test_palette_of_16_bits_is_refused():
    table = np.full((3, 256), 0x1234, np.uint16)
    assert code_of(tiff(NOISE[..., 0], photometric="palette", colormap=table)) == "unsupported"


def test_opaque_alpha_is_dropped_and_any_other_refused():
    rgba = np.dstack([NOISE, np.full(NOISE.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode(tiff(rgba, extrasamples=["unassalpha"])), NOISE)
    rgba[3, 4, 3] = 254
    assert code_of(tiff(rgba, extrasamples=["unassalpha"])) == "unsupported"


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"byteorder": ">"}])
def test_16_bit_is_converted_only_where_exact(options):
    deep = NOISE.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(tiff(deep, **options)), NOISE)
    deep[0, 0, 0] ^= 1
    assert code_of(tiff(deep, **options)) == "unsupported"


@pytest.mark.parametrize("orientation", range(9))
def test_rotated_images_are_refused(orientation):
    data = plain(extra=[(274, SHORT, 1, orientation)])
    if orientation in (0, 1):
        np.testing.assert_array_equal(decode(data), NOISE)
    else:
        assert code_of(data) == "unsupported"


def test_rotated_image_that_pillow_writes():
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "TIFF", tiffinfo={274: 8})
    assert code_of(file.getvalue()) == "unsupported"


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert("CMYK").save(file, "TIFF")
    return file.getvalue()


def bilevel() -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert("1").save(file, "TIFF")
    return file.getvalue()


def pages() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(NOISE, photometric="rgb", metadata=None)
        writer.write(NOISE[:20, :24], photometric="rgb", metadata=None)
    return file.getvalue()


def pyramid() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(NOISE, photometric="rgb", subifds=1, metadata=None)
        writer.write(NOISE[::2, ::2], photometric="rgb", metadata=None)
    return file.getvalue()


UNSUPPORTED = {
    "pages": pages,
    "pyramid": pyramid,
    "page chain that leads to itself": lambda: plain(following=8),
    "reduced image": lambda: plain({254: (LONG, 1, 1)}),
    "cmyk": cmyk,
    "cielab": lambda: plain({262: (SHORT, 1, 8)}),
    "ycbcr without jpeg": lambda: plain({262: (SHORT, 1, 6)}),
    "old jpeg": lambda: plain({259: (SHORT, 1, 6)}),
    "zstd": lambda: tiff(compression="zstd"),
    "bilevel": bilevel,
    "float": lambda: tiff(NOISE.astype(np.float32)),
    "signed": lambda: tiff(NOISE[..., 0].view(np.int8), photometric="minisblack"),
    "five channels": lambda: tiff(
        np.dstack([NOISE, NOISE[..., :2]]), extrasamples=[0, 0], planarconfig="contig"
    ),
    "bit order": lambda: plain(extra=[(266, SHORT, 1, 2)]),
    "bigtiff": lambda: tiff(bigtiff=True),
}


@pytest.mark.parametrize("make", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported(make):
    assert code_of(make()) == "unsupported"


TRUNCATIONS = {"plain": lambda: plain(), "rewritten": lambda: tiff(SMOOTH)} | {
    name: (lambda options=options: tiff(SMOOTH, **options)) for name, options in LOSSLESS.items() if options
}


@pytest.mark.parametrize("make", TRUNCATIONS.values(), ids=TRUNCATIONS)
def test_a_cut_is_refused_or_has_lost_no_pixels(make):
    data = make()
    whole = decode(data)
    refused = 0
    ends = {*range(1, len(data), 97), *range(len(data) - 40, len(data)), *range(1, 300)}
    for end in sorted(ends & set(range(len(data)))):
        try:
            np.testing.assert_array_equal(decode(data[:end]), whole)
        except Rejected:
            refused += 1
    assert refused >= len(ends) // 2  # most cuts go through pixels or the directory


def test_bytes_behind_the_pixels_are_ignored():
    np.testing.assert_array_equal(decode(plain() + b"anything"), NOISE)
    np.testing.assert_array_equal(decode(tiff(compression="lzw") + b"anything"), NOISE)


def test_every_cut_of_a_plain_patch_is_refused():
    data = plain(pixels=NOISE[:5, :6])
    for end in range(1, len(data)):
        assert code_of(data[:end]) == "truncated", end


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_every_cut_of_a_jpeg_is_refused(tile):
    data = tiff(SMOOTH, compression="jpeg", tile=tile)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        end_of_pixels = max(a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
    for end in range(1, end_of_pixels, 13):
        code_of(data[:end])


def shorten_strip(data: bytes, by: int) -> bytes:
    """Lets a file of one strip declare fewer bytes than it holds."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].tags[279]
        assert tag.count == 1
    kind = {3: "<H", 4: "<I"}[int(tag.dtype)]
    changed = bytearray(data)
    struct.pack_into(kind, changed, tag.valueoffset, tag.value[0] - by)
    return bytes(changed)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "jpeg"])
def test_strip_that_declares_too_little_is_refused(compression):
    data = tiff(NOISE, compression=compression, rowsperstrip=40)
    decode(data)
    assert code_of(shorten_strip(data, 100)) == "truncated"


def test_strips_that_are_missing():
    assert code_of(plain({278: (LONG, 1, 20)})) == "truncated"  # two strips needed, one there
    assert code_of(plain({273: (LONG, 1, 0)})) == "truncated"
    assert code_of(plain({279: (LONG, 1, 0)})) == "truncated"
    assert code_of(plain({273: None})) == "truncated"


def test_bomb_by_declared_size_needs_no_decoding():
    assert code_of(plain({256: (LONG, 1, 60000), 257: (LONG, 1, 60000)})) == "bomb"
    assert code_of(plain({256: (LONG, 1, 0)})) == "not_an_image"
    with pytest.raises(Rejected, match="bomb"):
        decode_tiff(plain(), max_pixels=40 * 48 - 1)


def test_bomb_by_the_size_of_a_tile():
    tiles = [(322, LONG, 1, 48000), (323, LONG, 1, 48000), (324, LONG, 1, 500), (325, LONG, 1, 99)]
    assert code_of(plain({259: (SHORT, 1, 8), 273: None, 278: None, 279: None}, extra=tiles)) == "bomb"


def test_strip_that_inflates_to_far_more_than_it_should():
    import psutil

    packed = zlib.compress(bytes(300_000_000), 1)
    data = plain({259: (SHORT, 1, 8), 279: (LONG, 1, len(packed))})
    data = data[: -NOISE.size] + packed
    before = psutil.Process().memory_info().rss
    code_of(data)
    assert psutil.Process().memory_info().rss - before < 50 << 20


SEEDS = {name: make() for name, make in TRUNCATIONS.items()} | {"jpeg": tiff(SMOOTH, compression="jpeg")}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_crashes(data):
    damaged = bytearray(SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(data.draw(st.integers(1, 3))):
        # the directory is at either end, where damage does most harm
        near = data.draw(st.integers(0, 300))
        position = data.draw(st.sampled_from([near, len(damaged) - 1 - near, near * len(damaged) // 301]))
        damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        pixels = decode(bytes(damaged))
    except Rejected:
        return
    assert pixels.size <= 3 * MAX_PIXELS
