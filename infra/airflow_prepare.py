"""Brings Airflow's metadata database up to date and makes the pools of the steps where they are missing.

Before that it looks whether Celery's broker answers, where there is one: exit 69 and a sentence where it does not.

Runs in Airflow's environment with AIRFLOW_HOME set; one process, since importing Airflow is most of the cost.
"""

from __future__ import annotations

import sys

from airflow.configuration import conf
from airflow.models.pool import Pool
from airflow.utils.db import upgradedb

UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

POOLS = {
    "histoline_heavy": "One ingest, or small step of a training run, at a time.",
    "histoline_gpu": "One step that uses the device at a time: train, evaluate.",
}


def broker_trouble() -> str:
    """What keeps Celery's broker from being used; empty where nothing does, or where none is needed."""
    if conf.get("core", "executor") != "CeleryExecutor":
        return ""
    try:
        import airflow.providers.celery  # noqa: F401
        import redis
    except ImportError as error:
        return f"Airflow's environment lacks what Celery needs ({error}): run infra/airflow_setup.sh."
    url = conf.get("celery", "broker_url")
    address = url.rpartition("@")[2].removeprefix("redis://")
    try:
        with redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=10) as broker:
            broker.ping()
    except redis.RedisError as error:
        return f"Celery's broker at {address} can't be used ({error}): start it, or check address and password."
    return ""


def main() -> None:
    """Migrates, then makes the pools; their slots are the user's to change and are left alone once they are there."""
    if trouble := broker_trouble():
        print(trouble, flush=True)
        sys.exit(UNAVAILABLE)
    upgradedb()
    for name, description in POOLS.items():
        if Pool.get_pool(name) is None:
            Pool.create_or_update_pool(name, slots=1, description=description, include_deferred=False)


if __name__ == "__main__":
    main()
