"""Tests that import Airflow. Its settings are made here, before the first of them is collected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_home

HOME = airflow_home.prepare()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A real Airflow home with its database."""
    airflow_home.migrate()
    yield HOME
