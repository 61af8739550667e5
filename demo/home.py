"""The folder where a demonstration keeps its catalog, Airflow's home and the logs."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT = Path(__file__).parent.parent / ".demo"


class Occupied(Exception):
    """Another demonstration runs in this folder."""


@contextmanager
def occupied(home: Path) -> Iterator[None]:
    """Empty *home* and keep it to ourselves; what is made in it stays when the block ends.

    Raises `Occupied`.
    """
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Occupied(
                f"another demonstration is running in {home}; stop it, or choose another folder "
                "with --home"
            ) from None
        for entry in home.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        yield
    finally:
        os.close(descriptor)
