"""What the DAG files are made of: settings, forms, assets, the step operator and the process that it runs.

It runs in Airflow's own environment and imports the standard library and Airflow, nothing of the pipelines: what they
offer is read from `catalog.json`, what they did from a result file.
"""
