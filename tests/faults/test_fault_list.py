"""The fault list: its quick rows in the fast tier, those of whole processes end to end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fault import Fault, Ground, Place, Skipped
from tests.faults.fault_list import FAULTS
from tests.faults.fault_list_processes import SLOW


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """What places are copied from."""
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def place(ground: Ground) -> Iterator[Place]:
    """A place for one fault."""
    with ground.place() as made:
        yield made


def holds(fault: Fault, place: Place) -> None:
    try:
        assert fault.problems(place) == []
    except Skipped as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_quick(fault: Fault, place: Place) -> None:
    holds(fault, place)


@pytest.mark.e2e
@pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.name)
def test_with_processes(fault: Fault, place: Place) -> None:
    holds(fault, place)


def test_names_are_unique() -> None:
    names = [fault.name for fault in FAULTS + SLOW]
    assert len(set(names)) == len(names) and not any(fault.slow for fault in FAULTS) and all(f.slow for f in SLOW)


def test_a_row_that_does_not_hold_is_seen(place: Place) -> None:
    fine = Fault("nothing", lambda place: (0, "fine"), says="fine")
    assert fine.problems(place) == []
    for wrong in (
        Fault("code", lambda place: (0, "fine"), 65),
        Fault("words", lambda place: (0, "fine"), says="other"),
        Fault("a bug", lambda place: (70, "Traceback"), 70),
        Fault("raises", lambda place: (1 // 0, ""), 70),
        Fault("left", lambda place: (0, ""), left=lambda place: ["something"]),
    ):
        assert len(wrong.problems(place)) == 1
