#!/usr/bin/env bash
# Makes the secrets of infra/compose.yaml in infra/secrets/ (git-ignored), each a file; what is there is kept.
# The folder is for its owner alone. The files in it can be read by all, since the containers' users must read them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

mkdir -p secrets
chmod 700 secrets
cd secrets

# 32 random bytes in URL-safe base64: a password, safe within a URL, and what Airflow's fernet key must look like.
random() { head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_'; }

# secret NAME: keeps standard input in the file NAME, unless there is one.
secret() {
  if [ -s "$1" ]; then
    cat >/dev/null
  else
    cat >"$1.partial"
    chmod 444 "$1.partial"
    mv "$1.partial" "$1"
    printf 'made infra/secrets/%s\n' "$1"
  fi
}

random | secret postgres_password
if [ ! -s redis_settings ]; then
  printf 'appendonly yes\ndir /data\nrequirepass %s\n' "$(random)" | secret redis_settings
fi
# `=` ends a base64 text, and has to be written otherwise within a URL.
database=$(sed 's/=/%3D/g' postgres_password)
broker=$(sed -n 's/^requirepass //p' redis_settings | sed 's/=/%3D/g')
printf 'postgresql+psycopg2://airflow:%s@postgres/airflow' "$database" | secret airflow_database
printf 'db+postgresql+psycopg2://airflow:%s@postgres/airflow' "$database" | secret airflow_results
printf 'redis://:%s@redis:6379/0' "$broker" | secret airflow_broker
random | secret airflow_fernet
random | secret airflow_jwt
random | secret airflow_session
printf '{"admin": "%s", "viewer": "%s"}\n' "$(random)" "$(random)" | secret airflow_users
