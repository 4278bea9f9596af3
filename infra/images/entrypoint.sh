#!/bin/sh
# Runs what it is given. It is there because the official Helm chart's probes call /entrypoint.
exec "$@"
