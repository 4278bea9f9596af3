# A worker of Airflow on a cluster: an image of the pipelines with Airflow's environment and the DAGs laid beside it.
# For the CeleryExecutor (infra/compose.yaml) and for the pods of the KubernetesExecutor. After both images:
#   docker build -f infra/images/airflow-worker.Dockerfile -t histoline-airflow-worker .
#   docker build -f infra/images/airflow-worker.Dockerfile -t histoline-airflow-worker-gpu \
#     --build-arg PIPELINE_IMAGE=histoline-pipeline-gpu:latest .
# The two environments stay apart (docs/decisions/0001-two-environments.md): each has its own Python, and the one starts
# the other's command.
ARG PIPELINE_IMAGE=histoline-pipeline:latest
ARG AIRFLOW_IMAGE=histoline-airflow:latest

FROM ${AIRFLOW_IMAGE} AS airflow

FROM ${PIPELINE_IMAGE} AS worker
USER 0
COPY --from=airflow /usr/local/bin/python3.12 /usr/local/bin/python3.12
COPY --from=airflow /usr/local/lib/libpython3.12.so.1.0 /usr/local/lib/libpython3.12.so.1.0
COPY --from=airflow /usr/local/lib/python3.12 /usr/local/lib/python3.12
COPY --from=airflow /opt/airflow-venv /opt/airflow-venv
COPY --from=airflow --chown=10001:10001 /opt/airflow /opt/airflow
COPY --from=airflow /entrypoint /entrypoint
COPY --from=airflow /opt/histoline/infra /opt/histoline/infra
COPY --from=airflow /opt/histoline/dags /opt/histoline/dags
RUN /sbin/ldconfig
# Airflow's programs come first; the steps are started by their whole path.
ENV PATH=/opt/airflow-venv/bin:/opt/histoline/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONWARNINGS=ignore \
    SCARF_ANALYTICS=false \
    DO_NOT_TRACK=1 \
    AIRFLOW_HOME=/opt/airflow \
    HISTOLINE_COMMAND=/opt/histoline/.venv/bin/histoline
WORKDIR /opt/airflow
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["airflow", "db", "check"]
ENTRYPOINT ["/entrypoint"]
CMD ["airflow", "version"]
