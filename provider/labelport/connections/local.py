"""Stores on this machine: a folder that the operator has opened for Labelport, and memory."""

from __future__ import annotations

import os

from labelport.connections.lookup import find
from labelport.errors import ConfigurationError
from labelport.model import Storage
from labelport.stores import Store
from labelport.stores.transport import Transport

#: Where ``file://`` storages without a connection live; each bucket is a folder in it.
ROOT_VARIABLE = "LABELPORT_LOCAL_ROOT"


def open_file(storage: Storage, transport: Transport | None = None) -> Store:
    """The folder ``file://bucket`` below the root, which a connection of type ``fs`` names in its
    ``path``, or ``LABELPORT_LOCAL_ROOT``. Nothing outside the root can be reached."""
    from labelport.stores.local import LocalStore

    if transport is None:
        return LocalStore(_root(storage), storage.bucket)
    return LocalStore(_root(storage), storage.bucket, chunk_bytes=transport.chunk_bytes)


def open_memory(storage: Storage) -> Store:
    """The bucket of this name in this process."""
    from labelport.stores.memory import MemoryStore

    return MemoryStore(storage.bucket)


def _root(storage: Storage) -> str:
    if storage.conn_id is None:
        root = os.environ.get(ROOT_VARIABLE, "")
        remedy = f"give it a connection of type fs, or set {ROOT_VARIABLE}"
    else:
        root = str(find(storage.conn_id, kind="fs").extra_dejson.get("path", ""))
        remedy = f'set {{"path": "/a/folder"}} in the extra of connection {storage.conn_id!r}'
    if not os.path.isabs(root):
        raise ConfigurationError(
            f"storage {storage.name!r}: nobody has opened a folder for file://; {remedy} "
            "(an absolute path)"
        )
    return root
