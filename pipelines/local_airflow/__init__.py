"""Airflow on one machine: settings, servers, their supervisor, and how it is started, watched and stopped.

Reads its settings and the state of its servers; leaves AIRFLOW_HOME with passwords, logs and that state. Imports core;
Airflow itself runs in an environment of its own.
"""
