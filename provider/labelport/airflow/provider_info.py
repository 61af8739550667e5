"""What Airflow asks of a provider at every start. Nothing is imported here: it must stay cheap."""

from __future__ import annotations

from typing import Any

#: The connection type of a catalog.
CONNECTION_TYPE = "labelport"

_CATALOG_CONNECTION: dict[str, Any] = {
    "connection-type": CONNECTION_TYPE,
    "hook-class-name": "labelport.airflow.hooks.CatalogHook",
    "hook-name": "Labelport catalog",
    "ui-field-behaviour": {
        "hidden-fields": ["extra"],
        "relabeling": {
            "host": "PostgreSQL host",
            "schema": "Database",
            "login": "User",
        },
        "placeholders": {
            "host": "leave empty for SQLite",
            "schema": "labelport",
            "port": "5432",
        },
    },
    "conn-fields": {
        "sqlite_path": {
            "label": "SQLite file",
            "description": "Absolute path of the catalog's file; leave empty for PostgreSQL.",
            "schema": {"type": ["string", "null"]},
        },
        "sslmode": {
            "label": "PostgreSQL TLS",
            "description": "How strictly PostgreSQL's certificate is checked.",
            "schema": {
                "type": ["string", "null"],
                "enum": ["disable", "prefer", "require", "verify-ca", "verify-full", None],
            },
        },
        "sslrootcert": {
            "label": "PostgreSQL CA file",
            "description": "Path of the certificates that PostgreSQL's own must be signed by.",
            "schema": {"type": ["string", "null"]},
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, valid under ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-labelport",
        "name": "Labelport",
        "description": "Labeling tasks from object stores, annotations back into them.",
        "integrations": [{"integration-name": "Labelport", "tags": ["service"]}],
        "operators": [
            {
                "integration-name": "Labelport",
                "python-modules": ["labelport.airflow.operators"],
            }
        ],
        "sensors": [
            {
                "integration-name": "Labelport",
                "python-modules": ["labelport.airflow.sensors"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Labelport",
                "python-modules": ["labelport.airflow.triggers"],
            }
        ],
        "hooks": [
            {
                "integration-name": "Labelport",
                "python-modules": ["labelport.airflow.hooks"],
            }
        ],
        "connection-types": [_CATALOG_CONNECTION],
    }
