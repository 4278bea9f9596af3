"""The data sets that histoline reads, by name."""

from __future__ import annotations

import pyarrow.compute as pc

from components.adapters.base import Adapter, DiscoverOptions, Discovery
from components.adapters.breakhis import BreakHis
from components.adapters.idc import Idc
from components.adapters.pcam import PCam
from components.adapters.sieve import WrongLayout
from components.core import arrow_arrays
from components.errors import UsageError

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (Idc(), BreakHis(), PCam())}
"""Every adapter by its name on the command line."""


def get_adapter(name: str) -> Adapter:
    """Adapter of a data set.

    Raises:
        UsageError: No adapter has this name.
    """
    if name not in ADAPTERS:
        raise UsageError(f"There is no data set {name!r}.", f"Known: {', '.join(ADAPTERS)}.")
    return ADAPTERS[name]


def discover(adapter: Adapter, root: str, options: DiscoverOptions) -> Discovery:
    """What `Adapter.discover` finds; where the layout is another data set's, the error says whose.

    Raises:
        UsageError: As `Adapter.discover`.
    """
    try:
        return adapter.discover(root, options)
    except WrongLayout as error:
        paths = arrow_arrays.strings(error.paths)
        for other in ADAPTERS.values() if error.paths else ():
            if other.name != adapter.name and 2 * pc.sum(other.matches(paths)).as_py() >= len(paths):
                raise UsageError(error.what, f"{error.fix} This looks like {other.name}: did you mean that?") from None
        raise
