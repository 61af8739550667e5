"""docker-compose.yml, as far as it can be checked without Docker."""

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from labelport import connections
from labelport.model import Direction, Storage
from labelport_proxy.settings import Settings

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}
OURS = {"proxy", *(name for name in SERVICES if name.startswith("airflow-"))}


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


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_needs_the_databases_waits_for_them(name):
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


@pytest.mark.parametrize("name", ["airflow-worker", "proxy"])
def test_the_connection_to_the_s3_server_is_sound(name):
    connection = json.loads(environment(name)["AIRFLOW_CONN_COMPOSE_S3"])

    assert connection["conn_type"] == "aws"
    assert connection["extra"]["endpoint_url"] == "http://s3:8333"


def test_signed_urls_lead_to_where_browsers_find_the_s3_server(monkeypatch):
    variable = "AIRFLOW_CONN_COMPOSE_S3"
    monkeypatch.setenv(variable, environment("proxy")[variable])
    storage = Storage(1, 1, "any", Direction.IMPORT, "s3", "bucket", "", conn_id="compose_s3")

    async def signed():
        store = connections.open_store(storage)
        try:
            return await store.sign("cat.png", seconds=60)
        finally:
            await store.close()

    assert asyncio.run(signed()).startswith("http://localhost:8333/bucket/cat.png?")
    assert SERVICES["s3"]["ports"] == ["127.0.0.1:8333:8333"]


def test_the_proxy_starts_with_its_settings_where_its_port_and_health_are_asked_for():
    given = environment("proxy")
    settings = Settings.from_environment(given)
    port = settings.port

    assert settings.host == "0.0.0.0"  # noqa: S104 # the container's; its port is bound to loopback
    assert SERVICES["proxy"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://localhost:{port}/readyz" in SERVICES["proxy"]["healthcheck"]["test"]
    assert set(given) - {"AIRFLOW_CONN_COMPOSE_S3"} <= {
        each.metadata["variable"] for each in fields(Settings)
    }


def test_the_proxy_has_the_catalog_of_airflow_and_none_of_its_secrets():
    catalog = "LABELPORT_CATALOG_URL"

    assert environment("proxy")[catalog] == environment("airflow-worker")[catalog]
    assert not any(name.startswith("AIRFLOW__") for name in environment("proxy"))


def test_the_image_holds_what_the_services_run():
    extras = re.search(r"labelport\[([\w,]+)\]", ROOT.joinpath("docker/Dockerfile").read_text())

    assert extras and set(extras[1].split(",")) == {"s3", "postgres", "proxy"}
    assert SERVICES["proxy"]["image"] == SERVICES["airflow-worker"]["image"]
    assert SERVICES["proxy"]["build"] == SERVICES["airflow-worker"]["build"]


def environment(name):
    """A service's, with something in place of the secrets."""
    return {
        variable: re.sub(r"\$\{\w+(:\?[^}]*)?\}", "x" * 40, value)
        for variable, value in SERVICES[name]["environment"].items()
    }


def test_paths_of_the_checkout_exist():
    mounts = [m for service in SERVICES.values() for m in service.get("volumes", ())]
    for mount in mounts:
        source = mount.partition(":")[0]
        assert source in COMPOSE["volumes"] or ROOT.joinpath(source).exists()
    assert ROOT.joinpath(SERVICES["airflow-worker"]["build"]["dockerfile"]).exists()
