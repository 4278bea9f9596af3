from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.errors import DataError
from components.training.feature_head import STRENGTHS, Samples, fit_head, log_loss, predict


def samples(n: int = 240, classes: int = 2, *, wide: int = 12, groups: int = 20, seed: int = 0) -> Samples:
    """Classes along the first features, which have scales of their own; groups shift features that mean nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    group = rng.integers(0, groups, n)
    x = rng.normal(size=(n, wide))
    x[np.arange(n), labels] += 2
    x[:, classes:] += 2 * rng.normal(size=(groups, wide))[group][:, classes:]
    x = (x * np.logspace(-2, 2, wide) + 5).astype(np.float32)
    return Samples(x, labels, group.astype(str))


def test_the_folded_weights_answer_as_scikit_learn_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    given = samples()
    head = fit_head(given, 2, strength=0.1)
    x = StandardScaler().fit_transform(given.features.astype(np.float64))
    theirs = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-8, max_iter=1000).fit(x, given.labels)
    ours = predict(head.layers, given.features)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs.decision_function(x), atol=0.02)
    assert head.strength == 0.1 and not head.scores


def test_the_penalty_is_chosen_on_patients_that_were_left_out() -> None:
    # 24 patients of ten patches each, told apart by 60 features: who tunes on other patches of the same patients sees
    # nothing of the harm that a weak penalty does to new ones.
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(24), 10)
    labels = (group % 2).astype(int)
    x = rng.normal(size=(24, 60))[group] + 0.1 * rng.normal(size=(240, 60))
    x[:, 0] += labels
    given = Samples(x.astype(np.float32), labels, group.astype(str))
    by_patient = fit_head(given, 2)
    by_patch = fit_head(Samples(given.features, labels, np.arange(240).astype(str)), 2)
    assert by_patient.strength > by_patch.strength == STRENGTHS[-1]
    assert by_patient.folds == 5 and set(by_patient.scores) == set(STRENGTHS)
    assert by_patient.scores[by_patient.strength] == min(by_patient.scores.values())


def test_a_wide_stage_does_not_outweigh_a_narrow_one() -> None:
    # One feature that says much beside 400 that say nothing: under a penalty that both share, it is heard less.
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 300)
    x = rng.normal(size=(300, 401)).astype(np.float32)
    x[:, 0] += 2 * labels
    given = Samples(x, labels, np.arange(300).astype(str))
    alone, beside = (
        fit_head(dataclasses.replace(given, blocks=blocks), 2, strength=1.0).layers[0][0] for blocks in ((), (1, 400))
    )
    told = [abs(kernel[0, 1]) / np.abs(kernel[1:, 1]).max() for kernel in (alone, beside)]
    assert told[1] > 10 * told[0]


def test_classes_that_training_lacks_never_win_and_weights_count() -> None:
    given = samples(classes=3)
    head = fit_head(Samples(given.features, np.array([0, 2, 3])[given.labels], given.groups), 5, strength=0.01)
    logits = predict(head.layers, given.features)
    assert logits.shape == (240, 5) and set(logits.argmax(axis=1)) == {0, 2, 3}
    assert log_loss(logits, np.array([0, 2, 3])[given.labels]) < 0.6
    two = samples()
    heavy = fit_head(
        Samples(two.features, two.labels, two.groups, np.where(two.labels == 1, 1.9, 0.1)), 2, strength=0.1
    )
    light = fit_head(two, 2, strength=0.1)
    share = [np.mean(predict(head.layers, two.features).argmax(axis=1)) for head in (heavy, light)]
    assert share[0] > share[1] + 0.05


@pytest.mark.parametrize("classes", [2, 3])
def test_a_hidden_layer_learns_what_a_line_cannot(classes: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    labels = (x[:, 0] * x[:, 1] > 0).astype(int) + (0 if classes == 2 else (x[:, 2] > 1))
    given = Samples(x, labels, np.arange(600).astype(str))
    scores = {}
    for units in (0, 16):
        head = fit_head(given, classes, strength=0.001, units=units, seed=1)
        scores[units] = log_loss(predict(head.layers, x), labels)
    assert [kernel.shape for kernel, _ in head.layers] == [(4, 16), (16, classes)]
    assert scores[16] < scores[0] - 0.03


def test_one_class_gives_no_head_and_one_patient_no_choice() -> None:
    given = samples()
    with pytest.raises(DataError, match="one class only"):
        fit_head(Samples(given.features, given.labels * 0, given.groups), 2)
    assert fit_head(Samples(given.features, given.labels, np.full(240, "a")), 2).folds == 0
