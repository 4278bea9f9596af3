"""TIFF files that readers understand in different ways, or that crash a decoder: what the fuzz has found."""

import contextlib
import io
import os
import signal
import struct

import numpy as np
import pytest
import tifffile

from components.core.rejects import Rejected
from tests.components.images.test_tiff import LONG, NOISE, SHORT, code_of, decode, plain, tiff

AMBIGUOUS = {
    "a second height": {"extra": [(257, LONG, 1, 65540)]},
    "an offset of one byte": {"changes": {273: (1, 1, -2)}},
    "a width of two values": {"changes": {256: (LONG, 2, 48)}},
    "a planar configuration that is none": {"changes": {284: (SHORT, 1, 7)}},
    "strips and tiles": {"extra": [(324, LONG, 1, 8)]},
    "a predictor without compression": {"extra": [(317, SHORT, 1, 2)]},
    "no photometric interpretation": {"changes": {262: None}},
    "bits of three samples where there is one": {"changes": {277: None}},
}
"""Files whose pixels other readers see elsewhere, or in another number."""


@pytest.mark.parametrize("given", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_readers_understand_in_different_ways_is_refused(given):
    decode(plain())
    assert code_of(plain(**given)) == "truncated"


def test_more_strips_than_the_image_has_are_refused():
    data = bytearray(tiff(NOISE, rowsperstrip=10))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].tags[257]
    struct.pack_into("<H" if int(tag.dtype) == SHORT else "<I", data, tag.valueoffset, 5)
    assert code_of(bytes(data)) == "truncated"


@pytest.mark.parametrize("tag", [256, 257])
def test_a_jpeg_frame_of_another_size_is_refused(tag):
    """tifffile leaves to chance what the frame does not cover."""
    data = bytearray(tiff(NOISE, compression="jpeg"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages[0].tags
    for changed in {tag, 278 if tag == 257 else tag}:  # the height with the rows of the strip
        entry = tags[changed]
        struct.pack_into("<H" if int(entry.dtype) == SHORT else "<I", data, entry.valueoffset, 65535)
    assert code_of(bytes(data)) == "truncated"


def test_a_second_description_does_not_matter():
    entry = (270, 2, 4, 0x616161)
    np.testing.assert_array_equal(decode(plain(extra=[entry, entry])), NOISE)


DAMAGED_LZW = bytes.fromhex(
    "80002040302016090682c1e1509864221d0b87c3621138945623178a4622d190302015199046e451a92024180f90c92532b9"
    "1830201418302014964aa47318803c28199a4ce753287048301e9ccf283190a87047439dd221c18100a2954f9d86c482da85"
    "0a930d0f0a06555ae458422c1bd76ad63120c07962b44144e3420da6c729150e08d6eb10b4784bba55e483020142f3"
)
"""On which the LZW decoder that tifffile takes (imagecodecs 2025.3.30) crashes; found by tests/faults/fuzz.py."""


def test_damaged_lzw_does_not_crash():
    data = plain({259: (SHORT, 1, 5), 279: (LONG, 1, len(DAMAGED_LZW))}, pixels=NOISE[:17, :20])
    data = data[: -17 * 20 * 3] + DAMAGED_LZW
    child = os.fork()
    if not child:
        with contextlib.suppress(Rejected):
            decode(data)
        os.kill(os.getpid(), signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
