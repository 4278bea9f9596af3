"""settings.toml: what is committed is valid, what is wrong is told, the environment overrides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from histoline_dags.form import build_form
from histoline_dags.settings import PROJECT, load
from histoline_dags.settings_file import SettingsError
from histoline_dags.stages import DAGS


def settings(tmp_path: Path, text: str, **environ: str):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return load({"HISTOLINE_SETTINGS": str(file), **environ})


def test_the_committed_file() -> None:
    found = load({})
    assert set(found.datasets) == {"idc", "breakhis", "pcam"}
    assert (found.pool, found.gpu_pool) == ("default_pool", "default_pool")
    assert (found.queue, found.gpu_queue) == ("default", "default")
    assert (found.retries, found.data_roots) == (5, ())
    idc = found.datasets["idc"]
    assert idc.defaults["train"]["preset"] == "idc_features"
    assert idc.defaults["ingest"]["input"] == f"{PROJECT}/data/idc"
    assert idc.cron == {"ingest": "", "train": "0 3 * * 0", "predict": "", "sweep": ""}
    assert found.datasets["pcam"].minutes["train"] == 2880 and idc.minutes["train"] == 1440


def test_an_empty_file_leaves_defaults_that_work(tmp_path: Path) -> None:
    found = settings(tmp_path, "")
    for own in found.datasets.values():
        for dag in DAGS:
            assert build_form(own, dag, ())
        assert own.defaults["ingest"]["input"] == f"{PROJECT}/data/{own.name}"
        assert own.defaults["predict"]["input"] == f"{PROJECT}/data/{own.name}-new"


def test_the_environment_overrides(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "[idc.train]\npreset = 'idc_cnn_105k'\nepochs = 3\n[idc.cron]\ntrain = '0 1 * * 1'",
        HISTOLINE_IDC_TRAIN_PRESET="idc_quick",
        HISTOLINE_IDC_TRAIN_EPOCHS="7",
        HISTOLINE_IDC_TRAIN_FORCE="true",
        HISTOLINE_IDC_CRON_TRAIN="",
        HISTOLINE_IDC_MINUTES_TRAIN="1.5",
        HISTOLINE_CRON_INGEST="5 5 * * *",
        HISTOLINE_POOL="histoline_heavy",
        HISTOLINE_GPU_POOL="histoline_gpu",
        HISTOLINE_QUEUE="cpu",
        HISTOLINE_GPU_QUEUE="gpu",
        HISTOLINE_WORKSPACE="/w/../v",
    )
    train = found.datasets["idc"].defaults["train"]
    assert (train["preset"], train["epochs"], train["force"]) == ("idc_quick", 7, True)
    assert found.datasets["idc"].cron == {"ingest": "5 5 * * *", "train": "", "predict": "", "sweep": ""}
    assert found.datasets["idc"].minutes["train"] == 1.5
    assert (found.pool, found.gpu_pool) == ("histoline_heavy", "histoline_gpu")
    assert (found.queue, found.gpu_queue) == ("cpu", "gpu")
    assert found.workspace == Path("/v")


def test_relative_input_lies_below_the_first_root(tmp_path: Path) -> None:
    found = settings(tmp_path, "[idc.ingest]\ninput='x/idc/'", HISTOLINE_DATA_ROOTS="/data/a:gs://bucket/raw:/b")
    assert found.data_roots == ("/data/a", "gs://bucket/raw", "/b")
    assert found.datasets["idc"].defaults["ingest"]["input"] == "/data/a/x/idc"
    assert found.datasets["pcam"].defaults["ingest"]["input"] == "/data/a/pcam"


@pytest.mark.parametrize(
    "text,told",
    [
        ("[idc", "is not TOML"),
        ("[idc.train]\npresets = 'a'", "Did you mean idc.train.preset?"),
        ("[idk.train]\npreset = 'a'", "no setting idk.train.preset"),
        ("pools = 'a'", "Did you mean pool?"),
        ("idc = 3", "no setting idc"),
        ("[minutes]\ntrain = -1", "minutes.train is -1"),
        ("[minutes]\ntrain = 'long'", "minutes.train is 'long'"),
        ("[retries]\ntimes = true", "retries.times is True"),
        ("[retries]\ntimes = 21", "retries.times is 21, but it should be less than or equal to 20"),
        ("[idc.minutes]\nvalidate = 0", "(or HISTOLINE_IDC_MINUTES_VALIDATE): idc.minutes.validate is 0"),
        ("pool = 3", "pool is 3"),
        ("gpu_pools = 'a'", "Did you mean gpu_pool?"),
        ("queue = 'cpu,gpu'", "(or HISTOLINE_QUEUE): queue is 'cpu,gpu'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, text)
    assert told in str(caught.value)


def test_a_mistyped_variable_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean HISTOLINE_IDC_TRAIN_PRESET?"):
        settings(tmp_path, "", HISTOLINE_IDC_TRAIN_PRESETS="x")
    settings(tmp_path, "", HISTOLINE_SOMETHING_ELSE="of the pipeline's own")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        load({"HISTOLINE_SETTINGS": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    "text",
    [
        "[idc.train]\npreset = 'no_such'",
        "[idc.train]\nepochs = 0",
        "[idc.train]\nepochs = 'x'",
        "[idc.ingest]\ninput = '../up'",
        "[idc.ingest]\nmax_faults = 2",
        "[breakhis.ingest]\ntask = 'typo'",
    ],
)
def test_defaults_that_the_form_would_refuse(tmp_path: Path, text: str) -> None:
    found = settings(tmp_path, text)
    name = "breakhis" if "breakhis" in text else "idc"
    with pytest.raises(SettingsError, match=f"settings.toml: {name}"):
        for dag in ("ingest", "train"):
            build_form(found.datasets[name], dag, found.data_roots)


def test_input_outside_the_roots(tmp_path: Path) -> None:
    found = settings(tmp_path, "[idc.ingest]\ninput = '/elsewhere/idc'", HISTOLINE_DATA_ROOTS="/data")
    with pytest.raises(SettingsError, match="HISTOLINE_DATA_ROOTS"):
        build_form(found.datasets["idc"], "ingest", found.data_roots)


def test_what_the_doctor_asks_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.doctor_weights import SETTINGS

    monkeypatch.setenv("HISTOLINE_DATA_ROOTS", str(tmp_path))
    monkeypatch.setenv("HISTOLINE_IDC_TRAIN_WEIGHTS", "w.h5")
    monkeypatch.setenv("HISTOLINE_PCAM_TRAIN_BACKBONE", f"{tmp_path}/b")
    exec(SETTINGS, {})
    assert json.loads(capsys.readouterr().out) == {
        "idc.train.weights": f"{tmp_path}/w.h5", "pcam.train.backbone": f"{tmp_path}/b",
    }  # fmt: skip
    monkeypatch.setenv("HISTOLINE_IDC_TRAIN_EPOCHS", "0")
    with pytest.raises(SystemExit, match="idc.train.epochs is 0"):
        exec(SETTINGS, {})
