"""A pair of Airflow DAGs for each data set of catalog.json: DATASET_ingest and DATASET_train.

What they use unattended stands in settings.toml; how they are made, in histoline_dags/factory.py.
"""

from __future__ import annotations

from histoline_dags.factory import ingest_dag, train_dag
from histoline_dags.settings import load

SETTINGS = load()

for name in SETTINGS.datasets:
    for dag in (ingest_dag(SETTINGS, name), train_dag(SETTINGS, name)):
        globals()[dag.dag_id] = dag
