"""One Celery worker of Airflow: `airflow celery worker OPTIONS`, which also touches a file at each of its heartbeats.

The file that HISTOLINE_WORKER_HEARTBEAT names is how `histoline airflow` knows, without a question over the broker,
that a worker is connected and not stuck: Celery sends a heartbeat every 2 s, and none while the broker is away.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow.__main__ import main
from celery.signals import heartbeat_sent

HEARTBEAT = Path(os.environ["HISTOLINE_WORKER_HEARTBEAT"])


@heartbeat_sent.connect
def touch(**_: object) -> None:
    """Notes that a heartbeat is on its way."""
    HEARTBEAT.touch()


if __name__ == "__main__":
    sys.argv[:1] = ["airflow", "celery", "worker"]
    main()
