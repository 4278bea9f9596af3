# Every histoline command, on processors (target `pipeline`, the default) or on NVIDIA devices (`pipeline-gpu`).
# From the checkout's root:
#   docker build -f infra/images/pipeline.Dockerfile -t histoline-pipeline .
#   docker build -f infra/images/pipeline.Dockerfile -t histoline-pipeline-gpu --target pipeline-gpu .
# Packages come from requirements.lock and requirements-gpu.lock, by hash; what runs has nothing from Debian on top of
# the base image.
ARG PYTHON_IMAGE=python:3.10-slim-bookworm@sha256:68d914ec641a0b69267ce65184d000a2bc3a9ee2590ab702b82250ab2385735a

FROM ${PYTHON_IMAGE} AS build
# 1: compiled modules belong into the image, whose file system is read-only when it runs; 0 makes a trial build quicker.
ARG UV_COMPILE_BYTECODE=1
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
# pyfarmhash, which TFX needs, is only to be had as source. A compiler of any version will do, and is left behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY infra/uv.lock ./
RUN python3.10 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes --requirement uv.lock
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv --quiet --python /usr/local/bin/python3.10 /opt/histoline/.venv \
    && /opt/uv/bin/uv pip sync --quiet --python /opt/histoline/.venv/bin/python --require-hashes requirements.lock
COPY pyproject.toml setup.py MANIFEST.in LICENSE ./
COPY components components
COPY pipelines pipelines
COPY schemas schemas
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --quiet --python /opt/histoline/.venv/bin/python --no-deps --no-build-isolation .

FROM build AS build-gpu
COPY requirements-gpu.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --quiet --python /opt/histoline/.venv/bin/python --require-hashes \
    --requirement requirements-gpu.lock

FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 histoline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin histoline \
    && install --directory --owner 10001 --group 10001 /workspace
# Whatever a library writes for itself goes to /tmp, the one place beside the workspace that has to be writable.
ENV PATH=/opt/histoline/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HISTOLINE_WORKSPACE=/workspace
WORKDIR /workspace
VOLUME /workspace
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=20s CMD ["histoline", "--version"]
ENTRYPOINT ["histoline"]
CMD ["--help"]

FROM runtime AS pipeline-gpu
# What the container runtime of NVIDIA hands in; the driver is the machine's own.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/histoline /opt/histoline

FROM runtime AS pipeline
COPY --from=build /opt/histoline /opt/histoline
