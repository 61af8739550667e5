"""What the measurements of syncs share: databases, servers, a process for each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from demo.processes import free_ports, process, responds
from labelport.stores import Store
from labelport.stores._http import HttpStore
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.s3 import S3Dialect
from servers import S3Server, postgres_server, weed_server

__all__ = ["S3Server", "free_ports", "process", "responds", "weed_server"]


def databases(folder: Path) -> Iterator[tuple[str, str]]:
    """Each database's name and the URL of an empty one, there until the next is asked for."""
    yield "SQLite", f"sqlite:///{folder}/catalog.db"
    with postgres_server() as server:
        yield "PostgreSQL", server.url()


def run(file: str, **spec: object) -> dict[str, float]:
    """What ``python file --child SPEC`` prints as JSON."""
    done = subprocess.run(
        [sys.executable, file, "--child", json.dumps(spec)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measured(seconds: float) -> dict[str, float]:
    """*seconds*, and the most memory and all CPU time this process, its start included, has had."""
    # Not getrusage: its maximum includes what the parent had when it forked.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "seconds": seconds,
        "megabytes": int(status["VmHWM"].split()[0]) / 1024,
        "cpu_seconds": time.process_time(),
    }


def tell(what: str, run: dict[str, float], count: int, baseline: float | None = None) -> None:
    """A line: so many a second, how many times the baseline, memory, without waiting."""
    rate = count / run["seconds"]
    ratio = f"{rate / baseline:.1f}x" if baseline else ""
    of_cpu = count / run["cpu_seconds"]
    print(
        f"  {what:42} {rate:>10,.0f}/s{ratio:>8}   peak {run['megabytes']:.0f} MB"
        f"   {of_cpu:,.0f} a CPU second",
        flush=True,
    )


def keys(server: S3Server) -> dict[str, str]:
    """A server's keys as a child's specification has them."""
    return {"key": server.access_key_id, "secret": server.secret_access_key}


def s3(bucket: str, endpoint: str, keys: dict[str, str]) -> Store:
    """Labelport's own store of a bucket."""
    credentials = FixedCredentials(AwsCredentials(keys["key"], keys["secret"]))
    return HttpStore(S3Dialect(bucket, credentials, endpoint=endpoint))
