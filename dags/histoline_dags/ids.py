"""The name of a pipeline run, from the Airflow run that asked for it: one function for operator and report pages."""

from __future__ import annotations

import hashlib
import re

SLUG_LENGTH = 40
DIGEST_LENGTH = 8

_MADE = re.compile(
    r"(manual|scheduled|asset_triggered|backfill)__(\d{4})-(\d\d)-(\d\d)T(\d\d)[:-](\d\d)[:-](\d\d)(?!\d)",
    re.ASCII,
)
_KINDS = {"asset_triggered": "data"}


def run_id(dag_id: str, dag_run_id: str) -> str:
    """RUN_ID of a DAG run: the same over retries and Clear, different for every DAG run.

    Ids that Airflow makes become date, time and what started the run, which sort like those of the command line
    (`20261121-100000-manual-1f3a9c02`). Ids that somebody chose keep their readable part, which is only a help for
    people: the digest tells runs apart.

    Args:
        dag_id: The DAG's id.
        dag_run_id: The DAG run's id, any text.

    Returns:
        At most 40 readable characters, `-`, 8 hexadecimal digits; matches `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
    """
    made = _MADE.match(dag_run_id)
    if made:
        kind, year, month, day, *time = made.groups()
        slug = f"{year}{month}{day}-{''.join(time)}-{_KINDS.get(kind, kind)}"
    else:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", dag_run_id)[:SLUG_LENGTH].strip("._-") or "run"
    # NUL occurs in neither id, so two pairs never join to the same text.
    digest = hashlib.sha256(f"{dag_id}\0{dag_run_id}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug}-{digest[:DIGEST_LENGTH]}"
