"""keras-tuner's oracles, asked for one trial at a time and told the results (imports keras-tuner, which loads Keras).

Nothing of an oracle's own state is kept: it is made anew from its seed and told the trials again, each after those that
had ended when it was drawn. So the same seed and results give the same trials, in one process or after a SIGKILL
(the state that keras-tuner saves lacks the random state of its Bayesian search).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras_tuner

from components.sweeps.sweep_types import Search, Trial, TrialRecord

RECIPE = "recipe"
UNITS, FACTOR = 9, 3
"""Hyperband: a whole recipe is nine units of epochs; of each rung a third goes on."""

DEFAULT_TRIALS = 10


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A trial that an oracle asks for.

    Attributes:
        recipe: Name.
        values: Searched field to value as YAML.
        share: Of the recipe's epochs after which it ends.
        continues: Trial that it goes on with.
    """

    recipe: str
    values: dict[str, Any]
    share: float = 1.0
    continues: int | None = None


class Asking:
    """An oracle.

    Args:
        search: What is looked through.
        metric: That is to be high.
    """

    def __init__(self, search: Search, metric: str) -> None:
        self._search, self._metric = search, metric
        # It writes its state at every step, which nobody reads.
        self._scratch = tempfile.TemporaryDirectory(prefix="histoline-oracle-")
        self._begin()

    def _begin(self) -> None:
        self._asked = 0
        self._told: list[int] = []
        self._oracle = _oracle(self._search, self._metric)
        self._oracle._set_project_dir(self._scratch.name, "oracle")
        self._oracle.verbose = 0

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Recipe and values of each trial, where results do not matter."""
        while isinstance(proposal := self.ask(), Proposal):
            yield proposal.recipe, proposal.values

    def ask(self) -> Proposal | None | str:
        """The next trial; None where the search is over, `wait` where results are missing."""
        with contextlib.redirect_stdout(io.StringIO()):
            drawn = self._oracle.create_trial(f"trial-{len(self._oracle.trials)}")
        if drawn.status == "IDLE":
            return "wait"
        if drawn.status == "STOPPED":
            return None
        self._asked += 1
        values = dict(drawn.hyperparameters.values)
        epochs, parent = values.get("tuner/epochs", UNITS), values.get("tuner/trial_id")
        name = str(values.pop(RECIPE, self._search.recipes[0]))
        fields = {field.name: field for field in self._search.fields}
        found = {
            key: value if fields[key].kind == "choice" else json.dumps(_plain(value))
            for key, value in values.items()
            if key in fields
        }
        return Proposal(name, found, min(1.0, epochs / UNITS), None if parent is None else int(parent))

    def replay(self, trials: Sequence[Trial], ended: Mapping[int, TrialRecord]) -> None:
        """Tells an oracle all that happened so far and that it has not been told.

        Args:
            trials: In the order in which they were drawn.
            ended: Those that have ended, by number.
        """
        new = trials[self._asked :]
        if any(set(self._told) - set(trial.known) for trial in new):
            self._begin()  # another process drew a trial before it had seen what was told here
            new = trials
        for trial in new:
            for number in trial.known:
                self._tell(number, ended[number])
            self.ask()
        for number in sorted(ended, key=lambda n: (ended[n].ended or 0.0, n)):
            self._tell(number, ended[number])

    def _tell(self, number: int, result: TrialRecord) -> None:
        if number in self._told:
            return
        self._told.append(number)
        known = self._oracle.trials[sorted(self._oracle.trials, key=int)[number]]
        with contextlib.redirect_stdout(io.StringIO()):
            if result.score is not None and result.state != "failed":
                self._oracle.update_trial(known.trial_id, {self._metric: result.score})
                known.status = "COMPLETED"
            else:
                known.status = "FAILED"
            self._oracle.end_trial(known)


def _plain(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else int(value)


def _oracle(search: Search, metric: str) -> Any:
    space = keras_tuner.HyperParameters()
    if len(search.recipes) > 1:
        space.Choice(RECIPE, list(search.recipes))
    for field in search.fields:
        sampling = {"sampling": "log"} if field.log else {}
        step = {} if field.step is None else {"step": field.step}
        if field.kind == "choice":
            space.Choice(field.name, list(field.choices), ordered=False)
        elif field.kind == "int":
            assert field.low is not None and field.high is not None
            whole = {name: int(value) for name, value in step.items()}
            space.Int(field.name, int(field.low), int(field.high), **whole, **sampling)
        else:
            space.Float(field.name, field.low, field.high, **step, **sampling)
    given: dict[str, Any] = {
        "objective": keras_tuner.Objective(metric, "max"),
        # Oracles take 0 for no seed.
        "seed": search.seed + 1,
        "hyperparameters": space,
        "allow_new_entries": False,
        "tune_new_entries": False,
        "max_consecutive_failed_trials": 10**9,
    }
    trials = search.trials or DEFAULT_TRIALS
    if search.oracle == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=UNITS, factor=FACTOR, **given)
    if search.oracle == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=trials, **given)
    return keras_tuner.oracles.RandomSearchOracle(max_trials=trials, **given)
