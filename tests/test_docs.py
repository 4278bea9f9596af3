"""What the documents name is there: files, links, modules, commands and their options, make targets, presets."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelines.cli import COMMANDS, cli
from pipelines.step import Steps
from pipelines.sweep_steps import STEPS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("components", "pipelines", "schemas", "dags", "infra", "tests", "docs", "benchmarks", ".ci")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "infra/README.md")
README_LINES = 120

MADE_LATER = ("benchmarks/.work", "tests/e2e/artifacts", "winner.yaml")
"""Folders that git ignores, and what a sweep writes."""

BEAM_FLAGS = {
    "--runner", "--job_endpoint", "--direct_running_mode", "--direct_num_workers",
    "--dask_client_address", "--dask_partition_size", "--environment_type", "--environment_config",
    "--no_save_main_session", "--sdk_worker_parallelism",
    "--setup_file", "--sdk_container_image", "--project", "--region", "--temp_location", "--staging_location",
}  # fmt: skip
FOREIGN_FLAGS = {"--require-hashes"}
"""Of pip; named alone."""


def documents() -> list[str]:
    """Every document that is checked, relative to the root."""
    return [*DOCUMENTS, *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def code(text: str) -> Iterator[tuple[str, bool]]:
    """(code, whether it is a line of a fenced or indented block), continued lines joined, comments cut."""
    fence, rest, joined = "", [], ""
    for line in text.splitlines():
        mark = re.match(r"\s*(```+)(\w*)", line)
        if mark:
            fence = "" if fence else mark[2] or "none"
        elif fence == "mermaid":
            yield line, False
        elif fence or line.startswith("    "):
            joined += re.sub(r"(^|\s)#\s.*", "", line)
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            yield joined.strip(), True
            joined = ""
        else:
            rest.append(line)
    for span in re.findall(r"`+([^`]+)`+", "\n".join(rest)):
        yield " ".join(span.split()), False


def problems(text: str, where: str) -> list[str]:
    """What a document names and the project does not have.

    Args:
        text: Markdown.
        where: Its path below the root, for relative links.
    """
    found = [f"link {target}" for target in links(text) if not link_stands(target, where, text)]
    for piece, whole in code(text):
        found += [f"path {name}" for name in paths(piece) if not path_stands(name)]
        found += [f"module {name}" for name in re.findall(r"\b(?:components|pipelines|schemas)(?:\.\w+)+", piece)
                  if not module_stands(name)]  # fmt: skip
        for words in commands(piece):
            found += [f"{' '.join(words)}: {trouble}" for trouble in command_troubles(words, whole)]
        if re.match(r"--?[a-z]", piece):
            found += [f"option {flag}" for flag in re.findall(r"(?:^|\s)(--[a-z][\w-]*)", piece) if flag not in flags()]
    return found


def links(text: str) -> list[str]:
    """Targets of links and pictures, those on the web apart."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [target for target in targets if not re.match(r"https?:|mailto:", target)]


def link_stands(target: str, where: str, text: str) -> bool:
    """Whether a relative link leads to a file, and its anchor to a heading there."""
    name, _, anchor = target.partition("#")
    file = (ROOT / where).parent / name if name else None
    if file is not None and not file.exists():
        return False
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8") if file and anchor else text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return not anchor or anchor in anchors


def paths(piece: str) -> list[str]:
    """Words that look like files or folders of the project."""
    words = [word.strip("`'\"(),;:") for word in re.split(r"[\s=|]+", piece)]
    below = tuple(f"{folder}/" for folder in FOLDERS)
    sources = re.compile(r"[\w./*{},-]*\w\.(py|md|toml|in|lock|sh|yaml|yml)")
    return [word.removeprefix("./") for word in words
            if word.removeprefix("./").startswith(below) or sources.fullmatch(word)]  # fmt: skip


def path_stands(name: str) -> bool:
    """Whether a file is there; NAME, NNNN, DATASET and `*` stand for anything, a bare file name for any folder's."""
    if name.startswith(MADE_LATER):
        return True
    pattern = re.sub("NAME|DATASET|NNNN", "*", name.rstrip("/."))
    if name.startswith(tuple(f"{folder}/" for folder in FOLDERS)) or (ROOT / name).exists():
        return any(ROOT.glob(pattern))
    return any(file.match(pattern) for file in files())


@functools.cache
def files() -> list[Path]:
    """All files of the project's folders."""
    return [file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if "__pycache__" not in file.parts]


def module_stands(name: str) -> bool:
    """Whether a dotted name is a package, a module, or a name within one."""
    file = ROOT.joinpath(*name.split("."))
    if file.with_suffix(".py").exists() or file.is_dir():
        return True
    parent = file.parent.with_suffix(".py")
    return parent.exists() and re.search(rf"\b{file.name}\b", parent.read_text(encoding="utf-8")) is not None


def commands(piece: str) -> Iterator[list[str]]:
    """The commands of ours in a line: words from `histoline`, `make` or a script on."""
    for part in re.split(r"\s(?:&&|\|\|?|;)\s", piece):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        for at, word in enumerate(words):
            if word == "-m" and at + 1 < len(words) and words[at + 1].startswith("pipelines."):
                yield ["histoline", *_command_of(words[at + 1]), *words[at + 2 :]]
                break
            if word in ("make", "histoline", ".venv/bin/histoline"):
                yield [word.split("/")[-1], *words[at + 1 :]]
                break
            if re.match(r"(benchmarks|infra)/\w+\.(py|sh)", word):
                yield words[at:]
                break


def _command_of(module: str) -> list[str]:
    return [] if module == "pipelines.cli" else [module.removeprefix("pipelines.")]


def command_troubles(words: list[str], whole: bool) -> list[str]:
    """What is wrong with a command of ours.

    Args:
        words: Program and arguments.
        whole: It is an example that must work as it stands; otherwise only names are looked at.
    """
    program, *given = words
    if program == "make":
        wanted = [word for word in _until_flag(given) if "=" not in word]
        return [f"no target {word}" for word in wanted if re.fullmatch(r"[a-z][\w-]*", word) and word not in targets()]
    if program != "histoline":
        text = (ROOT / program).read_text(encoding="utf-8") if (ROOT / program).exists() else ""
        shared = (ROOT / "benchmarks/common.py").read_text(encoding="utf-8")
        return [f"no option {flag}" for flag in _flags(given) if f'"{flag}"' not in text + shared]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and given and not given[0].startswith("-"):
        known = command.get_command(context, given[0])
        if known is None:
            return [] if re.fullmatch(r"[A-Z]+|…|\.\.\.", given[0]) else [f"no command {given[0]}"]
        command, given = known, given[1:]
    if isinstance(command, Steps) and given and given[0] in STEPS:
        command, given = STEPS[given[0]], given[1:]
    own = {name for param in command.params for name in param.opts} | {"--help"}
    beam = BEAM_FLAGS if command.context_settings.get("ignore_unknown_options") else set()
    wrong = [f"no option {flag}" for flag in _flags(given) if flag not in own | beam]
    for preset in (after for flag, after in zip(given, given[1:], strict=False) if flag == "--preset"):
        if not preset.isupper() and not (ROOT / f"pipelines/presets/{preset}.yaml").exists():
            wrong.append(f"no preset {preset}")
    if whole and not wrong and not isinstance(command, click.Group):
        try:
            command.make_context(command.name, list(given), resilient_parsing=False)
        except click.ClickException as error:
            wrong.append(error.format_message())
    return wrong


def _until_flag(words: list[str]) -> list[str]:
    stop = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:stop]


def _flags(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


@functools.cache
def targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@functools.cache
def flags() -> set[str]:
    """Options of all commands and benchmarks, and those of Beam that the documents name."""

    def of(command: click.Command) -> set[str]:
        own = {name for param in command.params for name in param.opts}
        if isinstance(command, click.Group):
            context = click.Context(command)
            own = own.union(*(of(command.get_command(context, name)) for name in command.list_commands(context)))  # type: ignore[arg-type]
        return own

    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    steps = set().union(*map(of, STEPS.values()))
    return of(cli) | steps | set(re.findall(r'"(--[a-z][\w-]*)"', scripts)) | BEAM_FLAGS | FOREIGN_FLAGS | {"--help"}


@pytest.mark.parametrize("name", documents())
def test_all_that_a_document_names_is_there(name: str) -> None:
    assert problems((ROOT / name).read_text(encoding="utf-8"), name) == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| [^|]+ \| `histoline (\w+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_architecture_has_the_floors_that_are_checked() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(?:components/)?(\w+)/`", text, re.MULTILINE)
    shown = {name: int(floor) for floor, name in rows}
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = re.search(r"^layers = \[(.*?)^\]", settings, re.DOTALL | re.MULTILINE)
    assert contract
    layers = [layer.split(" | ") for layer in re.findall(r'"([^"]+)"', contract[1])]
    checked = {
        name.removeprefix("components."): floor
        for floor, names in enumerate(reversed(layers))
        for name in names
        if floor  # errors, version and schemas are no packages of components
    }
    assert shown == checked


@pytest.mark.parametrize("file", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda file: file.stem)
def test_decision_records_share_one_form(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.match(rf"# {file.name[:4]}: \S", text)
    found = re.findall(r"^\*\*(Status|Context|Decision|Consequences)\.\*\*", text, re.MULTILINE)
    assert found == ["Status", "Context", "Decision", "Consequences"]
    assert re.search(r"^\*\*Status\.\*\* (Accepted|Superseded by \d{4}), \d{4}-\d\d-\d\d\.$", text, re.MULTILINE)


BAD = """# Bad
See [this](docs/nowhere.md), [that](#elsewhere), `components/datasets/nothing.py`, `nothing.py` and
`components.datasets.nothing`, or say `make nothing`, `histoline nothing`, `histoline ingest --nothing` and `--nowhere`.
`histoline datasets nothing` and `histoline train idc --preset nothing` are gone too.
```sh
.venv/bin/histoline ingest idc          # without --input
.venv/bin/histoline ingest idc --input DIR \\
  --nobody
python benchmarks/bench_ingest.py --nothing
python benchmarks/bench_nothing.py
.venv/bin/python -m pipelines.train --nothing
```
"""

GOOD = """# Good
See [this](docs/architecture.md), [that](#good), [the web](https://example.org), `components/datasets/`, `tfrecord.py`,
`components/adapters/NAME.py`, `components.datasets.tfrecord`, `manifest.json`, `models/DATASET/TASK` and `--folds 5`.
```sh
make setup test && .venv/bin/histoline datasets list
.venv/bin/python -m pipelines.ingest --dataset idc --input DIR --runner=DirectRunner   # Beam's own flag
```
"""


def test_what_is_not_there_is_found() -> None:
    assert sorted(problems(BAD, "README.md")) == sorted([
        "link docs/nowhere.md",
        "link #elsewhere",
        "path components/datasets/nothing.py",
        "path nothing.py",
        "module components.datasets.nothing",
        "make nothing: no target nothing",
        "histoline nothing: no command nothing",
        "histoline ingest --nothing: no option --nothing",
        "option --nowhere",
        "histoline datasets nothing: no command nothing",
        "histoline train idc --preset nothing: no preset nothing",
        "histoline ingest idc: Missing option '--input'.",
        "histoline ingest idc --input DIR --nobody: no option --nobody",
        "benchmarks/bench_ingest.py --nothing: no option --nothing",
        "path benchmarks/bench_nothing.py",
        "histoline train --nothing: no option --nothing",
    ])  # fmt: skip


def test_what_is_there_is_no_problem() -> None:
    assert problems(GOOD, "README.md") == []
