"""Airflow DAGs: DATASET_ingest, _train, _predict and _sweep for each data set of catalog.json, and histoline_prune.

What they use unattended stands in settings.toml; how they are made, in histoline_dags/.
"""

from __future__ import annotations

from histoline_dags.factory import ingest_dag, train_dag
from histoline_dags.prediction import predict_dag
from histoline_dags.pruning import prune_dag
from histoline_dags.settings import load
from histoline_dags.sweep import sweep_dag

SETTINGS = load()

for name in SETTINGS.datasets:
    for make in (ingest_dag, train_dag, predict_dag, sweep_dag):
        dag = make(SETTINGS, name)
        globals()[dag.dag_id] = dag
histoline_prune = prune_dag(SETTINGS)
