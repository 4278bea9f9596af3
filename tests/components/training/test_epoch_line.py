"""What an epoch's line says can be read back from it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.training.epoch_line import EpochFacts, parse, split_fold

NAMES = ("loss", "auc", "macro_f1", "val_loss", "val_auc", "val_macro_f1", "val_expected calibration")
NUMBER = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
FACTS = st.builds(
    EpochFacts,
    epoch=st.integers(1, 10_000),
    epochs=st.integers(1, 10_000),
    figures=st.dictionaries(st.sampled_from(NAMES), NUMBER.map(lambda value: round(value, 4)), min_size=1),
    seconds=st.floats(0, 1e5).map(lambda value: round(value, 1)),
    images_per_second=st.integers(0, 10**7).map(float),
    learning_rate=st.sampled_from((1e-3, 2.5e-5, 0.0, 1.0)),
    phase=st.integers(1, 9),
    phases=st.integers(2, 9),
    fold=st.just(0),
)


@settings(max_examples=60, deadline=None)
@given(facts=FACTS, fold=st.sampled_from([(0, 0), (2, 5)]))
def test_what_is_said_is_read_back(facts: EpochFacts, fold: tuple[int, int]) -> None:
    facts = dataclasses.replace(facts, fold=fold[0], folds=fold[1])
    prefix = f"fold {fold[0]}/{fold[1]}: " if fold[0] else ""
    assert parse(prefix + facts.to_line()) == facts
    assert parse(prefix + dataclasses.replace(facts, phase=1, phases=1).to_line()) is not None


@pytest.mark.parametrize(
    "line",
    ["", "epoch", "train: begins", "fold 1/5: back to epoch 3: val_auc 0.91", "epoch 1/x  loss 1  1 s  1 images/s  x",
     "epoch 1/2  loss one  1.0 s  10 images/s  learning rate 1.00e-03"],
)  # fmt: skip
def test_other_lines_are_none(line: str) -> None:
    assert parse(line) is None


def test_lines_of_a_fold() -> None:
    assert split_fold("fold 2/5: phase 1/2: 3 epochs") == (2, 5, "phase 1/2: 3 epochs")
    assert split_fold("fold two") == (0, 0, "fold two")
