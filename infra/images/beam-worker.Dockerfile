# Workers of Dataflow, Flink and Spark: Beam's own SDK image with the locked packages. The project's code is staged
# with each job (--setup_file). From the checkout's root:
#   docker build -f infra/images/beam-worker.Dockerfile -t histoline-beam-worker .
# The tag is Beam's version in requirements.lock; a test holds the two together. Never built (infra/README.md); take the
# digest of the base image into the line below when you have seen it.
FROM apache/beam_python3.10_sdk:2.74.0

COPY requirements.lock /tmp/requirements.lock
# Hashes prove what is installed; what the image brings in other versions is replaced.
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.lock \
    && rm /tmp/requirements.lock \
    && groupadd --gid 10001 worker \
    && useradd --create-home --uid 10001 --gid 10001 worker

USER 10001:10001
# The entrypoint of the base image starts Beam's worker.
