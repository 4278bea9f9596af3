"""The pages behind the Report tab: read from the workspace and from what Airflow's tasks returned."""
