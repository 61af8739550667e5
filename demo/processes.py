"""Child processes that end for certain, with everything they started."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0


@contextmanager
def process(
    command: Sequence[str],
    folder: str | Path,
    stop_signal: signal.Signals,
    ready: Callable[[], bool],
    *,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    start_seconds: float = START_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* in a process group of its own until the block ends.

    *stop_signal* goes to the whole group, and SIGKILL to what is left of it. The output goes to
    *log*, ``server.log`` in *folder* if not given, whose end a failed start shows.
    """
    log = log or Path(folder, "server.log")
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            cwd=folder,
            env=env,
        )
    try:
        deadline = time.monotonic() + start_seconds
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{command[0]} did not start (exit {child.poll()}):\n{tail(log)}"
                )
            time.sleep(0.05)
        yield child
    finally:
        for number in (stop_signal, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
                child.wait(timeout=10)
            except ProcessLookupError:
                child.wait()
            except subprocess.TimeoutExpired:
                continue


def tail(log: Path, size: int = 4000) -> str:
    """The last *size* characters of a log, as far as it is there."""
    return log.read_text(errors="replace")[-size:] if log.exists() else ""


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
            f"{name} is not installed: pip install 'airflow-provider-labelport[demo]'"
        )
    return found


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
