"""From a connection id to what it opens: a storage's `Store`, or the `Catalog`.

The entry points use it and nothing below knows it. Credentials stay in Airflow's connections:
what is asked here is whatever finds those (environment, secrets backend, Airflow's database in
a task). Airflow and the cloud's libraries are imported when they are needed, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from labelport.errors import ConfigurationError

if TYPE_CHECKING:
    from labelport.catalog import Catalog
    from labelport.model import Storage
    from labelport.stores import Store
    from labelport.stores.transport import Transport

#: The catalog's connection when nobody names another.
DEFAULT_CATALOG_CONN_ID = "labelport_default"


def open_store(storage: Storage, transport: Transport | None = None) -> Store:
    """Open the store that *storage* lives in; the caller closes it.

    Looks the connection up, which may take a request or two, but does not touch the bucket.
    The store must be used in one event loop.

    :param transport: how to reach it, but for TLS and proxy, which the connection decides.

    Raises:
        ConfigurationError: the scheme is unknown, or the connection missing or unfit.
    """
    opener = _OPENERS.get(storage.scheme)
    if opener is None:
        known = ", ".join(_OPENERS)
        raise ConfigurationError(
            f"storage {storage.name!r}: there is no store for {storage.scheme}://; known: {known}"
        )
    return opener(storage, transport)


def open_catalog(
    conn_id: str = DEFAULT_CATALOG_CONN_ID, *, answer_seconds: float | None = None
) -> Catalog:
    """Open the catalog that connection *conn_id* describes; the caller closes it.

    Where `DEFAULT_CATALOG_CONN_ID` is not defined, ``LABELPORT_CATALOG_URL`` counts.

    :param answer_seconds: see `Catalog`

    Raises:
        ConfigurationError: there is neither, or the connection is unfit.
    """
    from labelport.catalog import Catalog
    from labelport.connections.database import url_of

    return Catalog(url_of(conn_id), answer_seconds=answer_seconds)


def _open_s3(storage: Storage, transport: Transport | None) -> Store:
    from labelport.connections.aws import open_s3

    return open_s3(storage, transport)


def _open_file(storage: Storage, transport: Transport | None) -> Store:
    from labelport.connections.local import open_file

    return open_file(storage, transport)


def _open_memory(storage: Storage, transport: Transport | None) -> Store:
    from labelport.connections.local import open_memory

    return open_memory(storage)


def _not_yet(storage: Storage, transport: Transport | None) -> Store:
    raise ConfigurationError(
        f"storage {storage.name!r}: {storage.scheme}:// arrives in a later release; "
        "until then use a bucket behind an S3 interface"
    )


_OPENERS: dict[str, Callable[[Storage, Transport | None], Store]] = {
    "s3": _open_s3,
    "file": _open_file,
    "memory": _open_memory,
    "gs": _not_yet,
    "azure-blob": _not_yet,
}
