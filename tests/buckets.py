"""Buckets for tests, filled by an independent client, and the connections that open them."""

from __future__ import annotations

import json

from servers import S3Server


class Bucket:
    """A bucket filled by an independent client."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.client = server.client()
        self.name = name
        self.client.create_bucket(Bucket=name)

    def put(self, objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def get(self, prefix: str = "") -> dict[str, bytes]:
        """Every object under *prefix*, by key."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return {
            found["Key"]: self.client.get_object(Bucket=self.name, Key=found["Key"])["Body"].read()
            for found in listed.get("Contents", [])
        }


def aws_connection(server: S3Server, **changes: str) -> str:
    """The value of an ``AIRFLOW_CONN_…`` that opens *server*."""
    connection = {
        "conn_type": "aws",
        "login": server.access_key_id,
        "password": server.secret_access_key,
        "extra": {"endpoint_url": server.endpoint, "region_name": server.region},
    }
    return json.dumps(connection | changes)
