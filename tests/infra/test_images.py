"""The files of infra/images/, infra/compose.yaml and what is laid beside them: do they name what is there?

hadolint reads the Dockerfiles in `make lint`; test_image_steps.py runs their RUN lines.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.local_airflow.settings import Place, configuration
from tests.support.dockerfile import copies, stages

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
DOCKERFILES = sorted((INFRA / "images").glob("*.Dockerfile"))
COMPOSE = INFRA / "compose.yaml"
VALUES = INFRA / "helm" / "values.yaml"
POD = INFRA / "kubernetes" / "pod_template.yaml"
# Read by infra/compose.yaml itself, and by no program in a container.
OF_COMPOSE = {"HISTOLINE_TAG", "HISTOLINE_PORT", "HISTOLINE_DATA"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def tags_built() -> set[str]:
    """Image names that the heads of the Dockerfiles say how to build."""
    return {tag for path in DOCKERFILES for tag in re.findall(r" -t (\S+)", path.read_text(encoding="utf-8"))}


def in_context(source: str) -> bool:
    """Whether .dockerignore lets a file or folder of the checkout into a build; its last matching line decides."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    let_in = True
    for line in filter(None, (line for line in lines if not line.startswith("#"))):
        pattern = line.removeprefix("!")
        if pattern == "*" or source == pattern or source.startswith(f"{pattern}/"):
            let_in = line.startswith("!")
    return let_in


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_an_image_copies_is_there(path: Path) -> None:
    before: set[str] = set()
    for stage in stages(path):
        for origin, sources, _ in map(copies, stage.all("COPY")):
            if origin:
                assert origin in before, f"{origin} is no earlier stage of {path.name}"
            else:
                assert [source for source in sources if not (ROOT / source).exists()] == []
                assert [source for source in sources if not in_context(source)] == []
        before.add(stage.name)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_a_user_without_rights(path: Path) -> None:
    by_name = {stage.name: stage for stage in stages(path)}
    last = stages(path)[-1]
    users: list[str] = []
    while last is not None and not users:
        users = last.all("USER")
        last = by_name.get(last.base)
    assert users and users[-1] == "10001:10001"


def test_base_images_are_pinned_by_digest() -> None:
    pinned = {}
    for path in DOCKERFILES:
        for image in re.findall(
            r"^(?:ARG PYTHON_IMAGE=|FROM )([a-z].*)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            pinned[image.split(" AS ")[0]] = "@sha256:" in image
    pinned |= {
        service["image"]: "@sha256:" in service["image"]
        for service in compose()["services"].values()
        if not service["image"].startswith("histoline-")
    }
    stages_of_ours = {"build", "runtime"}
    # Whose digest could not be seen here: infra/README.md.
    assert {image for image, digest in pinned.items() if not digest} - stages_of_ours == {
        "apache/beam_python3.10_sdk:2.74.0"
    }


def test_compose_follows_the_specification() -> None:
    # From compose-go 2.9.1 (Apache License 2.0, The Compose Specification Authors), unchanged.
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    check = jsonschema.Draft7Validator(schema)
    check.validate(compose())
    broken = compose()
    broken["services"]["redis"]["depnds_on"] = ["postgres"]
    assert [list(error.path) for error in check.iter_errors(broken)] == [["services", "redis"]]


def test_compose_names_what_is_there() -> None:
    file = compose()
    for name, service in file["services"].items():
        image = service["image"].split(":")[0]
        assert image in tags_built() or "@sha256:" in service["image"], name
        assert set(service.get("depends_on", ())) <= set(file["services"]), name
        assert set(service.get("networks", ())) <= set(file["networks"]), name
        assert set(service.get("secrets", ())) <= set(file["secrets"]), name
        places = [volume.split(":")[0] for volume in service.get("volumes", ())]
        assert {place for place in places if re.fullmatch(r"\w+", place)} <= set(file["volumes"]), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name


def test_the_secrets_of_compose_are_made_by_its_script(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    script = shutil.copy(INFRA / "compose_secrets.sh", tmp_path / "infra")
    made = {}
    for _ in range(2):  # the second time everything is kept
        subprocess.run(["bash", script], check=True, capture_output=True, timeout=60)
        texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "infra" / "secrets").iterdir()}
        made = made or texts
        assert texts == made
    assert {f"secrets/{name}" for name in made} == {entry["file"] for entry in compose()["secrets"].values()}
    password = made["postgres_password"].replace("=", "%3D")
    assert made["airflow_database"] == f"postgresql+psycopg2://airflow:{password}@postgres/airflow"
    # Without the driver SQLAlchemy takes psycopg 3, which is not in the image.
    assert made["airflow_results"] == f"db+{made['airflow_database']}"
    assert set(json.loads(made["airflow_users"])) == {"admin", "viewer"}
    assert (tmp_path / "infra" / "secrets").stat().st_mode & 0o777 == 0o700


def known_settings() -> set[str]:
    """Variables that our programs read: named in their text, or made of the fields of dags/settings.toml."""
    known: set[str] = set()
    for folder in ("components", "pipelines", "dags"):
        for path in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r"HISTOLINE_[A-Z_]+", path.read_text(encoding="utf-8")))
    fields = (ROOT / "dags" / "histoline_dags" / "settings_file.py").read_text(encoding="utf-8")
    return known | {f"HISTOLINE_{name.upper()}" for name in re.findall(r"^    (\w+): ", fields, re.MULTILINE)}


def variables(path: Path) -> Iterator[str]:
    yield from re.findall(r"HISTOLINE_[A-Z_]+", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*DOCKERFILES, COMPOSE, VALUES, POD], ids=lambda path: path.name)
def test_variables_of_ours_are_settings_that_somebody_reads(path: Path) -> None:
    assert set(variables(path)) - OF_COMPOSE - known_settings() == set()


def test_airflow_is_told_in_the_images_what_it_is_told_on_one_machine() -> None:
    place = Place(Path("H"), Path("P"), Path("py"), 8080, "sqlite://", Path("W"), (), Path("histoline"))
    here = configuration(place, {"fernet": "f", "jwt": "j", "session": "s"})
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(INFRA / "images" / "airflow.cfg", encoding="utf-8")
    images = {section: dict(parser[section]) for section in parser.sections()}
    # Paths, addresses and secrets differ, and so does what only one machine, or only several, need.
    differ = {
        ("core", name)
        for name in ("dags_folder", "plugins_folder", "executor", "parallelism", "simple_auth_manager_passwords_file",
                     "execution_api_server_url", "fernet_key")
    } | {("database", "sql_alchemy_conn"), ("api", "host"), ("api", "base_url"), ("api", "secret_key"),
         ("api_auth", "jwt_secret"), ("logging", "base_log_folder"),
         ("logging", "file_task_handler_new_folder_permissions"), ("logging", "file_task_handler_new_file_permissions"),
         ("celery_broker_transport_options", "visibility_timeout")}  # fmt: skip
    flat = [{(section, name): value for section, values in settings.items() for name, value in values.items()
             if (section, name) not in differ} for settings in (here, images)]  # fmt: skip
    assert flat[0] == flat[1]


def pod() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(POD.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_pod_template_follows_the_schema_of_kubernetes(version: str) -> None:
    kubernetes_validate.validate(pod(), version, strict=True)
    broken = pod()
    broken["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_pod_template_and_chart_agree() -> None:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    (container,) = pod()["spec"]["containers"]
    assert container["name"] == "base", "the name that Airflow's executor looks for"
    image = values["images"]["airflow"]["repository"].rsplit("/", 1)[-1]
    worker = container["image"].split(":")[0].rsplit("/", 1)[-1]
    assert {image, worker} <= tags_built()
    here = {entry["name"]: entry.get("value") for entry in container["env"]}
    chart = {entry["name"]: entry["value"] for entry in values["env"]}
    ours = {name for name in chart if name.startswith("HISTOLINE_")}
    assert ours and {name: here.get(name) for name in ours} == {name: chart[name] for name in ours}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on this machine")
def test_terraform_is_formatted_and_can_be_read() -> None:
    # `validate` needs the provider, which is downloaded from a registry of its own.
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(INFRA / "terraform")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_says_the_same_settings_as_the_image() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(INFRA / "images" / "airflow.cfg", encoding="utf-8")
    image = {section: dict(parser[section]) for section in parser.sections() if not section.startswith("celery")}
    del image["core"]["executor"]  # the chart's own value
    chart = yaml.safe_load(VALUES.read_text(encoding="utf-8"))["config"]
    assert chart["core"].pop("auth_manager").endswith(".SimpleAuthManager"), "the chart's default is not in the image"
    assert chart == image
