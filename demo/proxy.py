"""The storage proxy, a process of its own beside Airflow."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo import standalone
from demo.processes import free_ports, process, responds, script
from demo.weed import S3Server


@dataclass(frozen=True)
class Proxy:
    """Where the proxy listens, and what it signs links with."""

    url: str
    secret: str = field(repr=False)


@contextmanager
def storage_proxy(home: Path, server: S3Server) -> Iterator[Proxy]:
    """Start the proxy, with the catalog and the connection that Airflow has."""
    (port,) = free_ports(1)
    proxy = Proxy(f"http://127.0.0.1:{port}", secrets.token_urlsafe(48))
    env = standalone.environment(home, server) | {
        "LABELPORT_PROXY_SECRET": proxy.secret,
        "LABELPORT_PROXY_PORT": str(port),
    }
    with process(
        [script("labelport-proxy")],
        home,
        signal.SIGTERM,
        lambda: responds(f"{proxy.url}/readyz"),
        env=env,
        log=home / "proxy.log",
    ):
        yield proxy
