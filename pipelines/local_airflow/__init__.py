"""Airflow on one machine: settings, servers, their supervisor, and how it is started, watched and stopped."""
