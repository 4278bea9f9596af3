"""Runs commands in this process, as the console script would."""

from __future__ import annotations

import importlib
import json
from typing import Any

from pipelines import console


def invoke(module: str, *args: object) -> int:
    """Exit code of `histoline ...`; read the output with capsys."""
    command = importlib.import_module(f"pipelines.{module}").command
    arguments = [str(a) for a in args]
    return console.run(lambda: command.main(arguments, standalone_mode=False, prog_name=module))


def invoke_json(capsys: Any, module: str, *args: object) -> tuple[int, Any]:
    """Exit code and the document of --json, which must be all of stdout."""
    capsys.readouterr()
    code = invoke(module, *args, "--json")
    return code, json.loads(capsys.readouterr().out)
