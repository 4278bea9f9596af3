"""Brings Airflow's metadata database up to date and makes the pool of heavy steps where it is missing.

Runs in Airflow's environment with AIRFLOW_HOME set; one process, since importing Airflow is most of the cost.
"""

from __future__ import annotations

from airflow.models.pool import Pool
from airflow.utils.db import upgradedb

POOL = "histoline_heavy"


def main() -> None:
    """Migrates, then makes the pool; its slots are the user's to change and are left alone once it is there."""
    upgradedb()
    if Pool.get_pool(POOL) is None:
        Pool.create_or_update_pool(POOL, slots=1, description="One heavy step at a time.", include_deferred=False)


if __name__ == "__main__":
    main()
