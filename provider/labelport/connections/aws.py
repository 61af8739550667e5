"""S3 by a connection of type ``aws``, in every form that Airflow's amazon provider knows.

Its hook finds the credentials (keys, session token, assumed role, profile, web identity, or
botocore's own search without a connection), botocore tells where the bucket is; from there on
Labelport's own store signs and sends.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from labelport.connections.lookup import find, missing
from labelport.errors import AccessDenied, ConfigurationError
from labelport.model import Storage

if TYPE_CHECKING:
    from labelport.stores import Store
    from labelport.stores._s3_endpoint import Addressing
    from labelport.stores.aws_credentials import AwsCredentials, CredentialSource
    from labelport.stores.transport import Transport


def open_s3(storage: Storage, transport: Transport | None = None) -> Store:
    """The bucket of *storage*.

    Beside what the amazon provider reads, ``service_config.s3`` in the connection's extra may
    hold ``public_endpoint_url`` (the endpoint in signed URLs, where browsers need another one)
    and ``ordered_listing: false`` (the server does not list in code-point order).

    Raises:
        ConfigurationError: the connection is missing or unfit, or there are no credentials.
    """
    from labelport.stores._http import HttpStore
    from labelport.stores.s3 import S3Dialect
    from labelport.stores.transport import DEFAULT_TRANSPORT

    with _in_our_words(storage):
        hook = _hook(storage.conn_id)
        session = hook.get_session(region_name=hook.region_name)
        credentials = _credentials(session, hook, storage)
        endpoint, addressing = _place(session, hook, storage.bucket)
    settings = hook.conn_config.get_service_config("s3")
    dialect = S3Dialect(
        storage.bucket,
        credentials,
        region=session.region_name or "us-east-1",
        endpoint=endpoint,
        public_endpoint=settings.get("public_endpoint_url"),
        addressing=addressing,
        ordered=settings.get("ordered_listing", True),
    )
    reached = replace(
        transport or DEFAULT_TRANSPORT, tls=_tls(hook.verify), proxy=_proxy(hook, endpoint)
    )
    return HttpStore(dialect, reached)


@contextmanager
def _in_our_words(storage: Storage) -> Iterator[None]:
    try:
        from airflow.sdk.exceptions import AirflowException
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as exc:
        raise missing("Airflow's amazon provider", "s3") from exc
    try:
        yield
    except (AirflowException, BotoCoreError, ClientError) as exc:
        place = f"connection {storage.conn_id!r}" if storage.conn_id else "AWS of this machine"
        raise ConfigurationError(f"storage {storage.name!r}: {place}: {exc}") from exc


def _hook(conn_id: str | None) -> Any:
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
    except ImportError as exc:
        raise missing("Airflow's amazon provider", "s3") from exc
    if conn_id is not None:
        find(conn_id, kind="aws")  # the hook would go on without it, with whatever it finds
    return AwsGenericHook(aws_conn_id=conn_id, client_type="s3")


def _credentials(session: Any, hook: Any, storage: Storage) -> CredentialSource:
    """What signs the requests, asked again now and then: botocore renews what expires."""
    from botocore import UNSIGNED

    from labelport.stores.aws_credentials import BlockingCredentials, FixedCredentials

    if hook.config.signature_version is UNSIGNED:
        return FixedCredentials(None)
    found = session.get_credentials()
    if found is None:
        where = f"connection {storage.conn_id!r}" if storage.conn_id else "this machine"
        raise ConfigurationError(
            f"storage {storage.name!r}: {where} has no AWS credentials; give it some, or for a "
            'public bucket set config_kwargs {"signature_version": "unsigned"}'
        )
    return BlockingCredentials(partial(_fetch, found))


def _fetch(found: Any) -> AwsCredentials:
    """The credentials of now, masked in Airflow's logs. Blocks while they are renewed."""
    from airflow.sdk.log import mask_secret
    from botocore.exceptions import BotoCoreError, ClientError

    from labelport.stores.aws_credentials import AwsCredentials

    try:
        now = found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as exc:
        raise AccessDenied(f"the AWS credentials could not be renewed: {exc}") from exc
    for secret in filter(None, (now.secret_key, now.token)):
        mask_secret(secret)
    return AwsCredentials(now.access_key, now.secret_key, now.token)


def _place(session: Any, hook: Any, bucket: str) -> tuple[str | None, Addressing]:
    """The endpoint, and where its URLs name *bucket*: read off a URL that botocore makes.

    So every setting counts that botocore knows: endpoints in the connection, the environment and
    the profile, dual stack, FIPS, acceleration, the addressing style.
    """
    from botocore import UNSIGNED
    from botocore.config import Config

    from labelport.stores._s3_endpoint import Addressing

    client = session.client(
        "s3",
        endpoint_url=hook.conn_config.get_service_endpoint_url("s3"),
        config=hook.config.merge(Config(signature_version=UNSIGNED)),
        verify=hook.verify,
    )
    url = urlsplit(client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket}))
    client.close()
    path = url.path.rstrip("/")
    if url.netloc.startswith(f"{bucket}."):
        host = url.netloc.removeprefix(f"{bucket}.")
        return _endpoint(url.scheme, host, path), Addressing.VIRTUAL
    if path.endswith("/" + quote(bucket, safe="")):
        base = path.removesuffix("/" + quote(bucket, safe=""))
        return _endpoint(url.scheme, url.netloc, base), Addressing.PATH
    raise ConfigurationError(
        f"{bucket!r} is not the name of a bucket; of an access point, write its alias"
    )


def _endpoint(scheme: str, host: str, path: str) -> str | None:
    # botocore presigns for Amazon's global endpoint, which redirects; None is the region's own.
    return None if host == "s3.amazonaws.com" else f"{scheme}://{host}{path}"


def _tls(verify: bool | str | None) -> ssl.SSLContext | bool:
    """What ``verify`` means to us: False, or the certificates in a file or folder."""
    if verify is None:
        verify = os.environ.get("AWS_CA_BUNDLE") or True
    if isinstance(verify, bool):
        return verify
    path = Path(verify)
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"verify: {verify} holds no certificates: {exc}") from exc


def _proxy(hook: Any, endpoint: str | None) -> str | None:
    """The HTTP proxy on the way to *endpoint*, from ``config_kwargs`` or the environment."""
    from botocore.utils import get_environ_proxies

    endpoint = endpoint or "https://s3.amazonaws.com"
    proxies = hook.config.proxies or get_environ_proxies(endpoint)
    proxy: str | None = proxies.get(urlsplit(endpoint).scheme)
    return proxy
