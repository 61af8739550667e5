"""The demonstration, run as a person runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.home import occupied

ROOT = Path(__file__).parent.parent

#: Who asked the proxy for what, and what came of it.
SERVED = (
    r"member +a picture +303 +791,555 bytes from the S3 server,\s+image/png",
    r"member +a sound +200 +12,562 bytes from the proxy,\s+audio/",
    r"member +the end of the sound +206 +bytes 11562-12561/12562",
    r"member +a text beside it +403 +forbidden: ",
    r"stranger +the picture +404 +not_found: ",
    r"signed link +a picture +303 +791,555 bytes from the S3 server,\s+image/png",
)


@pytest.mark.timeout(600)
def test_the_demonstration_imports_exports_and_serves_and_stops_everything(tmp_path):
    with demonstration(tmp_path) as running:
        output, _ = running.communicate(timeout=580)

    assert running.returncode == 0, output
    rows = {line.split()[0]: line.split()[1:6] for line in output.splitlines() if line.split()}
    assert rows["media"] == ["completed", "27", "26", "0", "0"]
    assert rows["task-files"] == ["completed_with_errors", "12", "374", "0", "1"]
    assert re.search(r"with-a-broken-row\.jsonl, row 1\n +reason: .+\n +remedy: ", output)
    assert rows["exports"] == ["completed", "35", "35", "0", "0"]
    assert len(re.findall(r"exported \d+ s later", output)) == 2
    assert [rows[number][-2] for number in ("1", "2", "4")] == ["2", "2", "1"]
    assert "3" not in rows
    assert "34 exported, 0 failed, 0 deleted" in output
    assert "the same 34 objects" in output
    assert re.search(r"\"s3://\S+/boom\.wav\".+\n +.+\"http://\S+/resolve/\?fileuri=\S+\"", output)
    for served in SERVED:
        assert re.search(served, output), served
    assert "CC0" in output and "LGPL" in output
    assert left_behind(tmp_path) == []


def test_an_interrupted_demonstration_stops_what_it_started(tmp_path):
    with demonstration(tmp_path) as running:
        wait_until(lambda: any("airflow scheduler" in line for line in left_behind(tmp_path)))
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)

    assert "everything stopped" in output
    assert running.returncode == 130
    assert left_behind(tmp_path) == []


def test_two_demonstrations_do_not_share_a_folder(tmp_path):
    with occupied(tmp_path), demonstration(tmp_path) as second:
        output, _ = second.communicate(timeout=60)

    assert second.returncode == 1
    assert "another demonstration is running" in output


def demonstration(home):
    return subprocess.Popen(
        [sys.executable, "-m", "demo", "--home", home],
        cwd=ROOT,
        env=os.environ | {"STARTED_BY": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def left_behind(home):
    """Command lines of the processes that inherited our mark and still live."""
    return [
        process.joinpath("cmdline").read_text().replace("\0", " ")
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and f"STARTED_BY={home}".encode() in environment(process)
    ]


def environment(process):
    try:
        return process.joinpath("environ").read_bytes()
    except OSError:
        return b""
