"""Reads the instructions of a Dockerfile, as far as those of infra/images/ need it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """From one FROM to the next: what it starts from, its name, and its instructions as (name, arguments)."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Arguments of every instruction of one name."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]


def stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, in order; an ARG before the first FROM is left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    found: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        name, arguments = line.split(maxsplit=1)
        if name == "FROM":
            base, _, stage = arguments.partition(" AS ")
            found.append(Stage(base, stage))
        elif found:
            found[-1].instructions.append((name, arguments))
    return found


def copies(arguments: str) -> tuple[str, list[str], str]:
    """A COPY's --from (empty for the checkout), sources and target."""
    words = arguments.split()
    origin = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), "")
    *sources, target = [word for word in words if not word.startswith("--")]
    return origin, sources, target
