"""Four weeks of retraining on real Airflow servers, with drawn patients that arrive week by week.

1. The first patients: ingest announces the data, the announcement starts training, the first model is promoted.
2. New patients: the same, and the model that saw more of them beats the champion.
3. Nothing new: ingest and training are skipped, and say why.
4. Damaged images: ingest fails and lists them; nothing is trained or pushed. Then a recipe that learns too
   little: its model is refused. After both, the champion is still the one of week 2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
HISTOLINE = ROOT / ".venv" / "bin" / "histoline"
PATIENCE = 1800.0
DRAWN = {1: (2400, 48), 2: (4500, 90), 4: (240, 6)}
"""Images and patients that arrive, by week."""


class Demo:
    """Servers, workspace and raw patches of one demonstration.

    Args:
        folder: Where all of it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.raw, self.workspace = folder, folder / "raw" / "idc", folder / "workspace"
        self.home = folder / "airflow"
        self.url = self.token = ""
        self.weeks: list[dict[str, Any]] = []

    def histoline(self, *arguments: object, **environ: str) -> str:
        """Runs a command and gives its stdout; ends the demonstration where it fails."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HISTOLINE_", "AIRFLOW"))}
        command = [str(HISTOLINE), *map(str, arguments)]
        return subprocess.run(command, env={**kept, **environ}, stdout=subprocess.PIPE, text=True, check=True).stdout

    def arrive(self, week: int) -> None:
        """Puts a week's new patients into the raw folder."""
        images, patients = DRAWN[week]
        drawn = self.folder / f"drawn-{week}"
        self.histoline("synth", "idc", "--output", drawn, "--patches", images, "--groups", patients, "--seed", week)
        shutil.copytree(drawn, self.raw, dirs_exist_ok=True)

    def up(self) -> None:
        """Starts Airflow and logs in."""
        environ = {
            "HISTOLINE_IDC_INGEST_INPUT": str(self.raw),
            "HISTOLINE_IDC_TRAIN_PRESET": "idc_quick",
            "HISTOLINE_RETRIES_SECONDS": "5",
        }
        result = self.histoline(
            "airflow", "up", "--home", self.home, "--workspace", self.workspace,
            "--data-root", self.folder / "raw", "--wait", 900, "--json", **environ,
        )  # fmt: skip
        self.url = json.loads(result)["url"]
        password = json.loads((self.home / "passwords.json").read_text(encoding="utf-8"))["admin"]
        self.token = self.call("/auth/token", {"username": "admin", "password": password})["access_token"]
        self.wait_for("the DAGs to be read", lambda: {"idc_ingest", "idc_train"} <= self.dags())

    def down(self) -> None:
        """Stops Airflow and all that it runs."""
        self.histoline("airflow", "down", "--home", self.home)

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call of Airflow's REST API, as JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return json.load(answer)

    def dags(self) -> set[str]:
        """Names of the DAGs that Airflow knows."""
        return {dag["dag_id"] for dag in self.call("/api/v2/dags?limit=100")["dags"]}

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Runs of a DAG, the oldest first."""
        return list(self.call(f"/api/v2/dags/{dag_id}/dagRuns?order_by=id&limit=100")["dag_runs"])

    def runs_after(self, dag_id: str, known: int) -> list[dict[str, Any]]:
        """Runs of a DAG but for the first ones."""
        return self.runs(dag_id)[known:]

    def wait_for(self, what: str, true: Callable[[], Any]) -> Any:
        """Polls until something is true, and gives it back."""
        deadline = time.monotonic() + PATIENCE
        while not (found := true()):
            if time.monotonic() > deadline:
                sys.exit(f"Waited in vain for {what}.")
            time.sleep(1)
        return found

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Triggers a DAG and waits for its end."""
        made = self.call(f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return self.ended(dag_id, made["dag_run_id"])

    def ended(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Waits for the end of a run.

        Returns:
            `run_id`, `state`, `tasks` (state by task) and `result` (the last result of a task).
        """
        place = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
        over = ("success", "failed")
        state = self.wait_for(f"{dag_id} {run_id}", lambda: (s := self.call(place)["state"]) in over and s)
        tasks = {task["task_id"]: task["state"] for task in self.call(f"{place}/taskInstances")["task_instances"]}
        return {"run_id": run_id, "state": state, "tasks": tasks, "result": self.result(place, tasks)}

    def result(self, place: str, tasks: Mapping[str, str]) -> dict[str, Any]:
        """Result of the last task that left one."""
        for task in ("report", "push", "evaluate", "train", "validate", "ingest"):
            if task in tasks:
                entries = self.call(f"{place}/taskInstances/{task}/xcomEntries")["xcom_entries"]
                if any(entry["key"] == "return_value" for entry in entries):
                    value = self.call(f"{place}/taskInstances/{task}/xcomEntries/return_value")["value"]
                    return dict(json.loads(value) if isinstance(value, str) else value)
        return {}

    def champion(self) -> str:
        """Version of the champion, empty where there is none."""
        rows = json.loads(self.histoline("models", "list", "idc", "--workspace", self.workspace, "--json"))
        rows = rows["models"] if isinstance(rows, dict) else rows
        return next((str(row["version"]) for row in rows if row["champion"]), "")

    def week(self, number: int, what: str, dag_id: str, ended: Mapping[str, Any], expected: Iterable[bool]) -> None:
        """Notes what happened, says it, and ends the demonstration where it was not what should happen."""
        result = ended["result"]
        row = {
            "week": number, "what": what, "dag": dag_id, **ended, "decision": result.get("decision"),
            "reason": result.get("reason") or result.get("state", ""), "champion": self.champion(),
        }  # fmt: skip
        self.weeks.append(row)
        (self.folder / "weeks.json").write_text(json.dumps(self.weeks, indent=1) + "\n", encoding="utf-8")
        tasks = ", ".join(f"{name} {state}" for name, state in row["tasks"].items())
        champion = row["champion"] or "none"
        print(f"Week {number}, {what}\n  {dag_id}: {row['state']} ({tasks})\n  {row['reason']}\n  champion: {champion}")
        sys.stdout.flush()
        if not all(expected):
            sys.exit(f"Week {number} ({what}) went another way than it should.")


def play(demo: Demo) -> None:
    """All four weeks."""
    for number, what in ((1, "the first patients"), (2, "new patients")):
        demo.arrive(number)
        if number == 1:
            demo.up()
        before = demo.champion()
        known = len(demo.runs("idc_train"))
        ended = demo.run("idc_ingest")
        expected = [ended["state"] == "success", ended["result"].get("state") == "committed"]
        demo.week(number, what, "idc_ingest", ended, expected)
        started = demo.wait_for("the data to start training", partial(demo.runs_after, "idc_train", known))[0]
        ended = demo.ended("idc_train", started["dag_run_id"])
        expected = [started["run_type"] == "asset_triggered", ended["result"].get("decision") == "promoted"]
        demo.week(number, what, "idc_train", ended, [*expected, demo.champion() not in ("", before)])
    champion, trained = demo.champion(), len(demo.runs("idc_train"))

    ended = demo.run("idc_ingest")
    demo.week(3, "nothing new", "idc_ingest", ended, [ended["tasks"] == {"ingest": "skipped"}])
    ended = demo.run("idc_train")
    expected = [set(ended["tasks"].values()) == {"skipped"}, ended["result"].get("decision") == "unchanged"]
    demo.week(3, "nothing new", "idc_train", ended, [*expected, demo.champion() == champion])

    intact = {path.relative_to(demo.raw) for path in demo.raw.rglob("*.png")}
    demo.arrive(4)
    for path in sorted(demo.raw.rglob("*.png")):
        if path.relative_to(demo.raw) not in intact:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ended = demo.run("idc_ingest")
    expected = [ended["state"] == "failed", "rejects.parquet" in ended["result"]["reason"]]
    # Two runs of week 1 and 2, one that was skipped: the failed ingest has started none.
    expected += [len(demo.runs("idc_train")) == trained + 1, demo.champion() == champion]
    demo.week(4, "damaged images", "idc_ingest", ended, expected)

    ended = demo.run("idc_train", {"epochs": 1})
    expected = [ended["state"] == "success", ended["tasks"]["push"] == "skipped", ended["tasks"]["report"] == "success"]
    expected += [ended["result"]["decision"] == "refused", demo.champion() == champion]
    demo.week(4, "a worse model", "idc_train", ended, expected)


def main() -> None:
    """Plays in a folder of its own; Airflow is stopped at the end, unless --keep is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo" / "retrain", help="made anew")
    parser.add_argument("--keep", action="store_true", help="leave Airflow running, to look around")
    given = parser.parse_args()
    demo = Demo(given.folder.absolute())
    if demo.home.exists():
        demo.down()
    shutil.rmtree(demo.folder, ignore_errors=True)
    demo.folder.mkdir(parents=True)
    started = time.monotonic()
    # Whoever ends this script, by the keyboard or not, ends the servers, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        play(demo)
        print(f"Four weeks in {time.monotonic() - started:.0f} s. What happened: {demo.folder / 'weeks.json'}")
        if given.keep:
            print(f"Look around: {demo.url} (passwords: {demo.home / 'passwords.json'}); then: "
                  f"{HISTOLINE.relative_to(ROOT)} airflow down --home {demo.home}")  # fmt: skip
    finally:
        if demo.home.exists() and not given.keep:
            demo.down()


if __name__ == "__main__":
    main()
