"""The name of a pipeline run, from the Airflow run that asked for it: one function for operator and report pages."""

from __future__ import annotations

import hashlib
import re

SLUG_LENGTH = 80
DIGEST_LENGTH = 12


def run_id(dag_id: str, dag_run_id: str) -> str:
    """RUN_ID of a DAG run: the same over retries and Clear, different for every DAG run.

    Airflow's own ids hold colons and plus signs and may be long or chosen by hand, so the readable part is only a
    help for people: the digest tells runs apart.

    Args:
        dag_id: The DAG's id.
        dag_run_id: The DAG run's id, any text.

    Returns:
        At most 80 readable characters, `-`, 12 hexadecimal digits; matches `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", dag_run_id)[:SLUG_LENGTH].strip("._-") or "run"
    # NUL occurs in neither id, so two pairs never join to the same text.
    digest = hashlib.sha256(f"{dag_id}\0{dag_run_id}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug}-{digest[:DIGEST_LENGTH]}"
