"""What Airflow's servers are told, and what of it nobody else may read."""

from __future__ import annotations

import configparser
import json
import os
import socket
from pathlib import Path

import pytest

from components.core.processes import MARK
from components.errors import UsageError
from pipelines.local_airflow import database_url, servers, settings
from pipelines.local_airflow.settings import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        home=tmp_path / "home",
        project=tmp_path / "project",
        python=tmp_path / "venv" / "bin" / "python",
        port=8123,
        database=f"sqlite:///{tmp_path}/home/airflow.db",
        workspace=tmp_path / "workspace",
        data_roots=("/data/a", "/data/b"),
        command=tmp_path / "histoline",
    )


def written(place: Place) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(place.home / "airflow.cfg", encoding="utf-8")
    return parser


def test_only_the_owner_may_look(place: Place) -> None:
    place.home.mkdir(mode=0o755)
    settings.write_configuration(place)
    assert place.home.stat().st_mode & 0o777 == 0o700
    for name in ("airflow.cfg", "passwords.json", "secrets.json"):
        assert (place.home / name).stat().st_mode & 0o777 == 0o600, name


def test_it_listens_on_this_machine_only_and_asks_for_a_password(place: Place) -> None:
    settings.write_configuration(place)
    stored = written(place)
    assert stored["api"]["host"] == "127.0.0.1"
    assert stored["core"]["simple_auth_manager_all_admins"] == "False"
    assert stored["core"]["simple_auth_manager_users"] == "admin:admin,viewer:viewer"
    assert "--skip-serve-logs" in servers.services(place, {})[0].argv
    # All three must move together, or tasks talk to another Airflow.
    assert stored["api"]["port"] == "8123"
    assert stored["api"]["base_url"] == "http://127.0.0.1:8123"
    assert stored["core"]["execution_api_server_url"] == "http://127.0.0.1:8123/execution/"


def test_passwords_and_secrets_stay_and_differ(place: Place) -> None:
    settings.write_configuration(place)
    first = (place.home / "airflow.cfg").read_text()
    passwords = json.loads(place.passwords.read_text())
    assert set(passwords) == {"admin", "viewer"}
    assert len(set(passwords.values())) == 2 and min(map(len, passwords.values())) >= 20
    place.passwords.write_text(json.dumps({**passwords, "viewer": "chosen by hand"}))
    place.passwords.chmod(0o644)
    settings.write_configuration(place)
    assert (place.home / "airflow.cfg").read_text() == first
    assert json.loads(place.passwords.read_text())["viewer"] == "chosen by hand"
    assert place.passwords.stat().st_mode & 0o777 == 0o600


def test_a_password_with_per_cent_signs_reaches_airflow(place: Place) -> None:
    import dataclasses

    url = "postgresql+psycopg2://u:p%40ss%25@h/db"
    settings.write_configuration(dataclasses.replace(place, database=url))
    assert written(place)["database"]["sql_alchemy_conn"] == url


def test_the_environment_is_an_allow_list(place: Place) -> None:
    environ = {
        "HOME": "/h", "PATH": "/bin", "HISTOLINE_WEBHOOK_URL": "https://hook", "HISTOLINE_RESULT_JSON": "/r",
        "HISTOLINE_AIRFLOW_DATABASE": "postgresql://u:secret@h/d", "AIRFLOW__API__HOST": "0.0.0.0",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True", "PYTHONPATH": "/evil", "AWS_SECRET_ACCESS_KEY": "s",
        "CUDA_VISIBLE_DEVICES": "0", "VIRTUAL_ENV": "/v",
    }  # fmt: skip
    made = settings.server_environment(place, environ)
    assert made["HISTOLINE_WORKSPACE"] == str(place.workspace)
    assert made["HISTOLINE_DATA_ROOTS"] == "/data/a:/data/b"
    assert made["HISTOLINE_COMMAND"] == str(place.command)
    assert made["HISTOLINE_WEBHOOK_URL"] == "https://hook"
    assert made["CUDA_VISIBLE_DEVICES"] == "0"
    assert (made["HISTOLINE_POOL"], made["HISTOLINE_GPU_POOL"]) == ("histoline_heavy", "histoline_gpu")
    assert made["AIRFLOW_HOME"] == made[MARK] == str(place.home)
    assert made["PATH"].split(os.pathsep)[0] == str(place.python.parent)
    for name in ("AIRFLOW__API__HOST", "PYTHONPATH", "AWS_SECRET_ACCESS_KEY", "VIRTUAL_ENV", "HISTOLINE_RESULT_JSON",
                 "HISTOLINE_AIRFLOW_DATABASE", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"):  # fmt: skip
        assert name not in made


def test_another_port_is_found_or_the_wanted_one_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert settings.free_port(port, exact=False) != port
        with pytest.raises(UsageError, match="--port"):
            settings.free_port(port, exact=True)
    assert settings.free_port(port, exact=True) == port


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "sqlite:////home/x/airflow.db"),
        ("postgresql://u:p@h:5432/db", "postgresql+psycopg2://u:p@h:5432/db"),
        ("postgres:///db?host=/run", "postgresql+psycopg2:///db?host=/run"),
        ("postgresql+psycopg2://h/db", "postgresql+psycopg2://h/db"),
    ],
)
def test_metadata_bases(url: str, expected: str) -> None:
    assert database_url.metadata_database(Path("/home/x"), url) == expected


@pytest.mark.parametrize("url", ["mysql://h/db", "db", "postgresql://h", "postgresql://h/", "sqlite:////tmp/x"])
def test_other_metadata_bases_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--database"):
        database_url.metadata_database(Path("/home/x"), url)


def test_passwords_are_not_shown() -> None:
    assert database_url.hide_password("postgresql://u:s3cret@h:1/d") == "postgresql://u:***@h:1/d"
    assert database_url.hide_password("sqlite:////x/airflow.db") == "sqlite:////x/airflow.db"


def test_a_password_is_not_typed_but_read_from_a_private_file(tmp_path: Path) -> None:
    url = "postgresql://u:s3cret@h:1/d"
    with pytest.raises(UsageError, match="HISTOLINE_AIRFLOW_DATABASE") as caught:
        database_url.refuse_visible_password(url, "--database", "HISTOLINE_AIRFLOW_DATABASE")
    assert "s3cret" not in str(caught.value)
    database_url.refuse_visible_password("postgresql://u@h:1/d", "--database", "X")
    file = tmp_path / "url"
    file.write_text(f"{url}\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        database_url.metadata_database(tmp_path, f"@{file}")
    file.chmod(0o600)
    assert database_url.metadata_database(tmp_path, f"@{file}") == "postgresql+psycopg2://u:s3cret@h:1/d"
    with pytest.raises(UsageError, match="can't be read"):
        database_url.metadata_database(tmp_path, f"@{tmp_path / 'nosuch'}")


def test_a_data_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert settings.existing_roots((str(tmp_path), "gs://bucket/x")) == (str(tmp_path), "gs://bucket/x")
    with pytest.raises(UsageError, match="nosuch is no folder.*--data-root"):
        settings.existing_roots((str(tmp_path), str(tmp_path / "nosuch")))


def test_files_that_were_open_to_others_are_closed_at_the_next_start(place: Place) -> None:
    logs = place.home / "logs" / "dag"
    logs.mkdir(parents=True)
    (logs / "attempt.log").write_text("x")
    (place.home / "airflow.db").write_text("x")
    for path in (logs, logs / "attempt.log", place.home / "airflow.db"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    settings.make_home(place.home)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (logs, logs / "attempt.log", place.home / "airflow.db")}
    assert modes == {"dag": 0o700, "attempt.log": 0o600, "airflow.db": 0o600}


def test_steps_keep_the_mask_of_whoever_started_airflow(place: Place) -> None:
    before = os.umask(0o002)
    try:
        assert settings.server_environment(place, {})["HISTOLINE_STEP_UMASK"] == "002"
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(before)


def test_a_bucket_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="local or mounted workspace.*gcsfuse"):
        settings.local_workspace("gs://bucket/x")
    assert settings.local_workspace("a/b") == Path.cwd() / "a" / "b"


HEALTHY = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-11-21T10:00:10.5+00:00"},
    "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": "2026-11-21T10:00:10Z"},
}
STARTED = dict.fromkeys(("scheduler", "dag-processor", "api-server"), 1795255200.0)  # 2026-11-21T10:00:00Z


def test_health_is_read_from_the_web_servers_answer() -> None:
    assert servers.judge(HEALTHY, STARTED) == dict.fromkeys(STARTED, True)
    ill = {**HEALTHY, "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": None}}
    assert servers.judge(ill, STARTED)["scheduler"] is False
    assert servers.judge({}, STARTED) == dict.fromkeys(STARTED, False)


def test_a_heartbeat_of_an_earlier_process_is_none() -> None:
    later = {name: time + 60 for name, time in STARTED.items()}
    judged = servers.judge(HEALTHY, later)
    assert judged == {"scheduler": False, "dag-processor": False, "api-server": True}


def test_without_the_web_server_the_others_are_unknown() -> None:
    assert servers.judge(None, STARTED) == {"scheduler": None, "dag-processor": None, "api-server": False}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot": "another boot"}'])
def test_a_state_of_another_boot_or_none_is_no_state(tmp_path: Path, text: str) -> None:
    assert servers.read_state(tmp_path) is None
    (tmp_path / servers.STATE).write_text(text)
    assert servers.read_state(tmp_path) is None
