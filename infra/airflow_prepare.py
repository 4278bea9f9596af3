"""Brings Airflow's metadata database up to date and makes the pools of the steps where they are missing.

Runs in Airflow's environment with AIRFLOW_HOME set; one process, since importing Airflow is most of the cost.
"""

from __future__ import annotations

from airflow.models.pool import Pool
from airflow.utils.db import upgradedb

POOLS = {
    "histoline_heavy": "One ingest, or small step of a training run, at a time.",
    "histoline_gpu": "One step that uses the device at a time: train, evaluate.",
}


def main() -> None:
    """Migrates, then makes the pools; their slots are the user's to change and are left alone once they are there."""
    upgradedb()
    for name, description in POOLS.items():
        if Pool.get_pool(name) is None:
            Pool.create_or_update_pool(name, slots=1, description=description, include_deferred=False)


if __name__ == "__main__":
    main()
