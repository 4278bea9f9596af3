"""A bounded run of the fuzz of our decoders, and that it would see a crash, a hang and wrong pixels."""

from __future__ import annotations

import os
import signal
import time

import pytest

from components.images import decode
from tests.faults import fuzz

CASES = 3000


def test_damaged_files_have_pillows_pixels_or_are_refused() -> None:
    told = fuzz.run(fuzz.drawn(), seed=1, cases=CASES, batch=CASES // 2)
    assert told.findings == [], told.line()
    assert told.tried == CASES and told.outcomes["same"] > CASES // 20, "most damage is seen, not all"


@pytest.mark.parametrize(
    "kind, wrong",
    [
        ("crash", lambda *_: os.kill(os.getpid(), signal.SIGKILL)),
        ("hang", lambda *_: time.sleep(100)),
        ("error", lambda *_: 1 // 0),
        ("pixels", lambda data, _: 255 - decode.decode_rgb8(data, ".png")),
    ],
    ids=["crash", "hang", "error", "pixels"],
)
def test_what_must_not_be_is_seen(kind, wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "decode_rgb8", wrong)
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(fuzz, "case", lambda corpus, *_: (corpus[0], corpus[0].data))
    told = fuzz.run(fuzz.drawn()[:1], seed=0, cases=2)
    assert [finding.kind for finding in told.findings] == [kind] * 2 and told.tried == 2
