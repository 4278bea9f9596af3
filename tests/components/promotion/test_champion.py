"""champion.json: current and best ever follow from the history, and a lost or late file is repaired."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import json_documents
from components.errors import DataError, UsageError
from components.promotion import champion as c
from components.storage.open import open_storage

HOME = "models/idc/binary"


def promotion(version: int, by: str = "gate", source: int | None = None, best: bool = True, **more) -> c.Promotion:
    facts = {
        "run_id": f"run-{version}", "when": "2026-01-01T00:00:00+00:00", "who": "ada", "why": "better",
        "dataset_dir": "datasets/idc/binary/0123456789abcdef", "plan_id": "0123456789abcdef",
        "content_digest": "0" * 64, "group_unit": "patient", "group_key": "", "metric": "auc",
        "metrics": {"auc": 0.9, "pr_auc": None},
    }  # fmt: skip
    best = best and by == "gate"
    return c.Promotion(version=version, promoted_by=by, from_version=source, raises_best=best, **{**facts, **more})


def history(*entries: c.Promotion) -> c.Champion:
    return c.Champion(entries)


def put(storage, entry: c.Promotion, live: bool = True) -> None:
    """A version folder as a push leaves it."""
    text = json.dumps(dataclasses.asdict(entry)).encode()
    storage.write_atomic(f"{HOME}/{entry.version}/{c.PROMOTION}", text)
    if live:
        storage.write_atomic(f"{HOME}/{entry.version}/{c.LIVE}", b"model")


@given(st.lists(st.integers(0, 2**40)), st.floats(0, 2**40))
def test_the_next_version_is_above_every_other_and_not_before_the_clock(existing, seconds):
    version = c.next_version(existing, seconds)
    assert all(version > old for old in existing) and version >= int(seconds) and version > 0


def test_versions_within_one_second_and_with_the_clock_set_back():
    assert c.next_version([], 1700000000.9) == 1700000000
    assert c.next_version([1700000000], 1700000000.9) == 1700000001
    assert c.next_version([1700000000, 7], 5.0) == 1700000001


def test_best_ever_is_the_last_that_raised_it():
    assert history(promotion(1), promotion(2)).best_ever.version == 2
    drifting = history(promotion(1), promotion(2, best=False), promotion(3, best=False))
    assert (drifting.current.version, drifting.best_ever.version) == (3, 1)


def test_promotions_by_hand_never_become_best_ever():
    assert history(promotion(1, "hand")).best_ever is None
    assert history(promotion(1), promotion(2, "hand")).best_ever.version == 1


def test_rolled_back_versions_are_best_ever_no_longer():
    taken_back = history(promotion(1), promotion(2), promotion(3), promotion(4, "hand", source=1))
    assert (taken_back.current.version, taken_back.best_ever.version) == (4, 1)
    again = history(*taken_back.history, promotion(5))
    assert again.best_ever.version == 5


def test_a_rollback_to_a_republished_version_means_the_model_behind_it():
    chain = history(promotion(1), promotion(2), promotion(3, "hand", source=1), promotion(4),
                    promotion(5, "hand", source=3))  # fmt: skip
    assert chain.best_ever.version == 1
    assert chain.origin(chain.current).version == 1
    assert chain.before() is None


def test_before_goes_further_back_each_time():
    three = history(promotion(1), promotion(2), promotion(3))
    assert three.before().version == 2
    once = history(*three.history, promotion(4, "hand", source=2))
    assert once.before().version == 1
    assert history(promotion(1)).before() is None


def test_it_is_written_and_read_back(tmp_path):
    storage = open_storage(tmp_path)
    assert c.load(storage, HOME) is None
    made = history(promotion(1), promotion(2, "hand"))
    storage.write_atomic(f"{HOME}/{c.NAME}", made.dump())
    assert c.load(storage, HOME) == made
    document = json.loads((tmp_path / HOME / c.NAME).read_text())
    assert (document["version"], document["best_ever"]["version"], len(document["history"])) == (2, 1, 2)


def test_a_model_renamed_before_a_crash_is_adopted(tmp_path):
    storage = open_storage(tmp_path)
    put(storage, promotion(1))
    storage.write_atomic(f"{HOME}/{c.NAME}", history(promotion(1)).dump())
    put(storage, promotion(2))
    assert c.load(storage, HOME).current.version == 2
    assert c.read(storage, HOME)[0].current.version == 2, "and written"


def test_a_lost_file_is_written_again_from_the_version_folders(tmp_path):
    storage = open_storage(tmp_path)
    made = history(promotion(1), promotion(2), promotion(3, "hand", source=1))
    for entry in made.history:
        put(storage, entry)
    put(storage, promotion(9), live=False)
    storage.write_atomic(f"{HOME}/77/{c.LIVE}", b"put there by somebody else")
    storage.write_atomic(f"{HOME}/notes/x", b"no version")
    assert c.load(storage, HOME) == made
    assert c.versions(storage, HOME) == [1, 2, 3, 9, 77]


def test_pruned_versions_stay_in_the_history(tmp_path):
    storage = open_storage(tmp_path)
    made = history(promotion(1), promotion(2))
    storage.write_atomic(f"{HOME}/{c.NAME}", made.dump())
    put(storage, promotion(2))
    assert c.load(storage, HOME) == made


def test_entries_of_before_they_kept_how_the_model_was_made_are_read(tmp_path):
    storage = open_storage(tmp_path)
    made = history(promotion(1), promotion(2, "hand", unproven="read the paper", recipe_digest="a"))
    document = json.loads(made.dump())
    new = ("recipe_digest", "source_digest", "unproven")
    del document[json_documents.SEAL]
    for entry in (document, document["best_ever"], *document["history"]):
        for name in new:
            entry.pop(name)
    storage.write_atomic(f"{HOME}/{c.NAME}", json.dumps(document).encode())
    old = c.read(storage, HOME)[0]
    assert [(entry.version, entry.recipe_digest, entry.unproven) for entry in old.history] == [(1, "", ""), (2, "", "")]
    assert old.current.caveat == "" and "because: read the paper" in made.current.caveat


def test_a_damaged_file_says_what_to_do(tmp_path):
    storage = open_storage(tmp_path)
    for text in ("{", "[]", '{"format": 1}', "null"):
        storage.write_atomic(f"{HOME}/{c.NAME}", text.encode())
        with pytest.raises(DataError, match="Delete it"):
            c.load(storage, HOME)
    storage.write_atomic(f"{HOME}/{c.NAME}", b'{"format": 2}')
    with pytest.raises(UsageError, match="Upgrade"):
        c.load(storage, HOME)


def test_an_edited_file_is_noticed(tmp_path):
    storage = open_storage(tmp_path)
    document = json.loads(history(promotion(1)).dump())
    assert len(document[json_documents.SEAL]) == 64
    storage.write_atomic(f"{HOME}/{c.NAME}", json.dumps({**document, "who": "somebody else"}).encode())
    with pytest.raises(DataError, match=r"champion\.json was edited"):
        c.read(storage, HOME)
    storage.write_atomic(f"{HOME}/{c.NAME}", json.dumps(document).encode())  # other white space is no edit
    assert c.read(storage, HOME)[0] is not None
