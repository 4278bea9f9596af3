# Workers of Dataflow, Flink and Spark: Beam's own SDK image with the locked packages. The project's code is staged
# with each job (--setup_file). Build from the root: docker build -f infra/images/beam-worker.Dockerfile .
# Not built in CI (docs/engines.md). The tag is Beam's version in requirements.lock; a test holds the two together.
FROM apache/beam_python3.10_sdk:2.74.0

COPY requirements.lock /tmp/requirements.lock
# Hashes prove what is installed; what the image brings in other versions is replaced.
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.lock \
    && rm /tmp/requirements.lock \
    && useradd --create-home --uid 10001 worker

USER worker
# The entrypoint of the base image starts Beam's worker.
