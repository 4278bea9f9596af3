"""The commands of `histoline`: name, module and one line of help; known without loading any of them."""

from __future__ import annotations

COMMANDS = {
    "ingest": ("pipelines.ingest", "Raw patches to audited, sharded TFRecords."),
    "verify": ("pipelines.verify", "Check every byte of a committed data set."),
    "audit": ("pipelines.audit", "Check a committed data set for leakage again."),
    "datasets": ("pipelines.datasets", "List, show, prune or forget committed data sets."),
    "train": ("pipelines.train", "Train, evaluate, promote if earned."),
    "sweep": ("pipelines.sweep", "Compare recipes, choose one, promote it if earned."),
    "ensemble": ("pipelines.ensemble", "The mean of several runs' models, as a run of its own."),
    "step": ("pipelines.step", "One stage of a training run, for schedulers."),
    "predict": ("pipelines.predict", "Give images or records a probability by a model."),
    "evaluate": ("pipelines.evaluate", "A model on another labelled data set, without training."),
    "report": ("pipelines.report", "Report pages of runs, and their index."),
    "runs": ("pipelines.runs", "List, show or compare runs."),
    "leakage": ("pipelines.leakage", "What a random split would promise, and what new patients get."),
    "lineage": ("pipelines.lineage", "What ML Metadata knows of a run."),
    "models": ("pipelines.models", "List, show, promote or roll back models."),
    "prune": ("pipelines.prune", "Delete old runs, data sets and the like that nothing needs."),
    "airflow": ("pipelines.airflow", "Start, stop or show Airflow on this machine."),
    "synth": ("pipelines.synth", "Draw a synthetic sample in a data set's own layout."),
    "doctor": ("pipelines.doctor", "Check this machine: name, finding, fix."),
    "catalog": ("pipelines.catalog", "Write what Airflow's forms offer."),
}
