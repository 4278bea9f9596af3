"""URLs of Airflow's metadata base and broker: where they may stand, and how they may be shown."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from components.errors import UsageError

POSTGRESQL = "postgresql+psycopg2"


def metadata_database(home: Path, url: str) -> str:
    """SQLAlchemy URL of the metadata base: a file in `home`, or the PostgreSQL that is named.

    Args:
        home: AIRFLOW_HOME.
        url: As typed; `@FILE` stands in a private file.

    Raises:
        UsageError: For anything else.
    """
    url = from_private_file(url, "--database")
    if not url:
        return f"sqlite:///{home / 'airflow.db'}"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres", POSTGRESQL) or not urllib.parse.urlsplit(url).path[1:]:
        raise UsageError(
            "The metadata base must be a PostgreSQL URL with a data base's name.",
            "Write --database postgresql://USER@HOST:PORT/NAME, or leave it out for an SQLite file.",
        )
    return f"{POSTGRESQL}://{rest}"


def from_private_file(url: str, option: str) -> str:
    """What was typed, or what stands in the file that was typed as `@FILE`.

    Args:
        url: As typed.
        option: That it was typed for.

    Raises:
        UsageError: The file can't be read, or others may read it, too.
    """
    if not url.startswith("@"):
        return url
    path = Path(url[1:]).expanduser()
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"The URL of {option} can't be read from {path}: {error}.", f"Check {option}.") from error
    if mode & 0o077:
        raise UsageError(f"Others may read {path}, which holds a password.", f"Run: chmod 600 {path}")
    return text


def refuse_visible_password(url: str, option: str, variable: str) -> None:
    """Refuses a password on the command line, where lists of processes and make show it.

    Args:
        url: As typed.
        option: That it was typed for.
        variable: That may hold it instead.

    Raises:
        UsageError: The URL holds one.
    """
    if urllib.parse.urlsplit(url).password is not None:
        raise UsageError(
            "A password on the command line can be read in every list of processes.",
            f"Put the whole URL into {variable}, or into a file of mode 0600: {option} @FILE.",
        )


def kept_database(database: str) -> str:
    """The PostgreSQL that an earlier start was given; empty where it was the file in its home."""
    return "" if database.startswith("sqlite") else database


def hide_password(url: str) -> str:
    """A URL of a data base or broker as it may be shown."""
    parts = urllib.parse.urlsplit(url)
    if parts.password is None:
        return url
    who, _, where = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{who.partition(':')[0]}:***@{where}").geturl()
