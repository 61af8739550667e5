"""docker-compose.yml, as far as it can be checked without Docker."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}


def test_the_file_is_valid():
    command = ["--builtin-schema", "vendor.compose-spec", FILE]
    done = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), *command],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_a_service_tells_its_health_and_restarts(name):
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(n for n in SERVICES if n.startswith("airflow-")))
def test_airflow_waits_for_what_it_needs(name):
    waits = SERVICES[name]["depends_on"]

    assert waits["postgres"]["condition"] == "service_healthy"
    if name not in ONE_SHOT:
        assert waits["airflow-init"]["condition"] == "service_completed_successfully"


def test_no_secret_stands_in_the_file():
    telling = re.compile(r"PASSWORD|SECRET|FERNET|ACCESS_KEY|//[^/@]+:[^/@]+@")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if telling.search(f"{name}={value}"):
                assert "${" in value, f"{name} is written out"


def test_every_variable_is_required_and_explained():
    used = set(re.findall(r"\$\{(\w+)", FILE.read_text())) - {"HOSTNAME"}
    required = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    explained = re.findall(r"^(\w+)=(.*)$", ROOT.joinpath(".env.example").read_text(), re.MULTILINE)

    assert used == required == {name for name, _ in explained}
    assert {value for _, value in explained} == {""}


def test_ports_are_open_to_this_machine_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_connection_to_the_s3_server_is_sound():
    text = SERVICES["airflow-worker"]["environment"]["AIRFLOW_CONN_COMPOSE_S3"]
    connection = json.loads(re.sub(r"\$\{\w+:\?[^}]*\}", "x", text))

    assert connection["conn_type"] == "aws"
    assert connection["extra"]["endpoint_url"] == "http://s3:8333"


def test_paths_of_the_checkout_exist():
    mounts = [m for service in SERVICES.values() for m in service.get("volumes", ())]
    for mount in mounts:
        source = mount.partition(":")[0]
        assert source in COMPOSE["volumes"] or ROOT.joinpath(source).exists()
    assert ROOT.joinpath(SERVICES["airflow-worker"]["build"]["dockerfile"]).exists()
