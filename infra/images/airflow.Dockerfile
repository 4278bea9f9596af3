# Airflow's servers (api-server, scheduler, dag-processor) with the DAGs and the report pages, without the pipelines.
# From the checkout's root:
#   docker build -f infra/images/airflow.Dockerfile -t histoline-airflow .
# Packages come from dags/requirements-cluster.lock: those of dags/requirements.lock, less the tools of tests, with the
# executors of clusters.
ARG PYTHON_IMAGE=python:3.12.13-slim-bookworm@sha256:4766d8b510c428e595d74b9cc5bbb2fae8e26316fffb4adc89908d79aacd58a2

FROM ${PYTHON_IMAGE} AS build
ARG UV_COMPILE_BYTECODE=1
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY infra/uv.lock ./
RUN python3.12 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes --requirement uv.lock
COPY dags/requirements-cluster.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv --quiet --python /usr/local/bin/python3.12 /opt/airflow-venv \
    && /opt/uv/bin/uv pip sync --quiet --python /opt/airflow-venv/bin/python --require-hashes requirements-cluster.lock

FROM ${PYTHON_IMAGE} AS airflow
# AIRFLOW_HOME holds the settings, which are part of the image; logs and state are places for volumes.
RUN groupadd --gid 10001 histoline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin histoline \
    && install --directory --owner 10001 --group 10001 /opt/airflow/logs /opt/airflow/state /workspace
COPY --from=build /opt/airflow-venv /opt/airflow-venv
COPY infra/images/airflow.cfg /opt/airflow/airflow.cfg
COPY --chmod=755 infra/images/entrypoint.sh /entrypoint
COPY infra/airflow_prepare.py /opt/histoline/infra/airflow_prepare.py
COPY dags /opt/histoline/dags
ENV PATH=/opt/airflow-venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONWARNINGS=ignore \
    SCARF_ANALYTICS=false \
    DO_NOT_TRACK=1 \
    AIRFLOW_HOME=/opt/airflow \
    HISTOLINE_WORKSPACE=/workspace
WORKDIR /opt/airflow
USER 10001:10001
EXPOSE 8080
# Of any of the servers; infra/compose.yaml and the chart ask each for more.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["airflow", "db", "check"]
ENTRYPOINT ["/entrypoint"]
CMD ["airflow", "version"]
