"""The data sets that histoline reads, one module each."""

from __future__ import annotations

from components.adapters.base import Adapter
from components.adapters.breakhis import BreakHis
from components.adapters.idc import Idc
from components.adapters.pcam import PCam
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
