"""The trials that are known before the first of them runs, and the next one of a search that learns from results."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.datasets.manifest import Manifest
from components.errors import UsageError
from components.sweeps.search_space import fits, grid_values, recipe
from components.sweeps.sweep_types import ADAPTIVE, Search, SweepRecord, Trial, TrialRecord

if TYPE_CHECKING:
    from components.sweeps.oracles import Asking

MOST = 1000
"""Trials of a grid."""


def known_trials(search: Search, manifest: Manifest, folder: Path) -> tuple[Trial, ...]:
    """The trials of a list, a grid or a random search; none of one that draws them from results.

    Args:
        search: What is looked through.
        manifest: Of the data set.
        folder: Where presets lie.

    Raises:
        UsageError: One of them can't be trained, or a grid has too many.
    """
    if search.oracle in ADAPTIVE:
        return ()
    if search.oracle == "random":
        from components.sweeps.oracles import Asking

        drawn: Iterator[tuple[str, dict[str, Any]]] = Asking(search, "auc").all()
    else:
        drawn = _grid(search)
    found: list[Trial] = []
    for name, values in drawn:
        if search.trials is not None and len(found) == search.trials:
            break
        if len(found) == MOST:
            raise UsageError(f"The grid has more than {MOST} trials.", "Search fewer fields, or set --trials.")
        found.append(make_trial(len(found), name, values, manifest, folder))
    return tuple(found)


def make_trial(
    number: int, name: str, values: Mapping[str, Any], manifest: Manifest, folder: Path, **more: Any
) -> Trial:
    """A trial, its recipe checked against the data set.

    Args:
        number: Its number.
        name: Recipe that it starts from.
        values: Searched field to value as YAML.
        manifest: Of the data set.
        folder: Where presets lie.
        more: Other fields of `Trial`.

    Raises:
        UsageError: The recipe can't be trained.
    """
    try:
        config = recipe(name, values, folder)
        fits(config, manifest)
    except UsageError as error:
        drawn = "".join(f" {field}={value}" for field, value in values.items())
        raise UsageError(f"Trial {number}, {name!r}{drawn}: {error.what}", error.fix) from None
    return Trial(number, name, dict(values), config.to_dict(), config.digest(), **more)


def _grid(search: Search) -> Iterator[tuple[str, dict[str, Any]]]:
    names = [field.name for field in search.fields]
    for name in search.recipes:
        for values in itertools.product(*(grid_values(field) for field in search.fields)):
            yield name, dict(zip(names, values))


def next_trial(
    sweep: SweepRecord, ended: Mapping[int, TrialRecord], asking: Asking, manifest: Manifest, folder: Path
) -> Trial | None | str:
    """The next trial of a search that learns from results.

    Args:
        sweep: The sweep.
        ended: Trials that have ended, by number.
        asking: The oracle, made once for a process.
        manifest: Of the data set.
        folder: Where presets lie.

    Returns:
        The trial; None where the search is over; `wait` where it has to wait for a trial that runs.
    """
    search = sweep.search
    if search.trials is not None and len(sweep.trials) >= search.trials:
        return None
    asking.replay(sweep.trials, ended)
    proposal = asking.ask()
    if proposal is None or isinstance(proposal, str):
        return proposal
    order = sorted(ended, key=lambda number: (ended[number].ended or 0.0, number))
    more: dict[str, Any] = {"known": tuple(order)}
    if proposal.continues is not None:
        more["continues"] = _origin(sweep, proposal.continues)
    trial = make_trial(len(sweep.trials), proposal.recipe, proposal.values, manifest, folder)
    if proposal.share < 1:
        total = sum(int(phase["epochs"]) for phase in trial.config["phases"])
        more["epochs"] = max(1, round(total * proposal.share))
    return dataclasses.replace(trial, **more)


def _origin(sweep: SweepRecord, number: int) -> int:
    """The trial in whose folder a chain of rungs is trained."""
    before = sweep.trials[number].continues
    return number if before is None else before
