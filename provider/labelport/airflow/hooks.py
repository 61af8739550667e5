"""Hooks: the catalog, and a storage for people who write their own tasks.

Both block. They raise the errors of `labelport.errors`, whose messages name the remedy and never
a secret. Nothing heavy is imported before a method is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from labelport.airflow.bridge import Bridge
from labelport.airflow.jobs import current_job
from labelport.connections import DEFAULT_CATALOG_CONN_ID, open_catalog, open_store
from labelport.errors import ConfigurationError

if TYPE_CHECKING:
    from labelport.catalog import Catalog
    from labelport.catalog.recording import Outcome
    from labelport.checking import Check
    from labelport.importing import ImportOptions
    from labelport.model import ObjectMeta, Problem, Storage, SyncState, TaskRow
    from labelport.stores import Store

#: How many annotations `StorageHook.save_annotations` exports at once.
_IDS = 1_000


class CatalogHook(BaseHook):
    """The catalog: projects, storages, tasks, links and runs.

    The connection names a SQLite file (``sqlite_path`` in its extra) or a PostgreSQL; where the
    default one is not defined, ``LABELPORT_CATALOG_URL`` counts.

    :param conn_id: connection of type ``labelport``
    """

    conn_name_attr = "conn_id"
    default_conn_name = DEFAULT_CATALOG_CONN_ID
    conn_type = "labelport"
    hook_name = "Labelport catalog"

    def __init__(self, conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def get_conn(self) -> Catalog:
        """The catalog, open; use it in ``with``. Raises `ConfigurationError`."""
        return open_catalog(self.conn_id)

    def get_catalog(self) -> Catalog:
        """The same as `get_conn`, by the name people look for."""
        return self.get_conn()

    def test_connection(self) -> tuple[bool, str]:
        """Whether the catalog opens and is up to date; if not, what to do."""
        from labelport.catalog.upgrading import require_current

        try:
            with self.get_conn() as catalog:
                require_current(catalog)
                return True, f"{catalog!r} is up to date"
        except ConfigurationError as exc:
            return False, str(exc)


class StorageHook(BaseHook):
    """One storage of the catalog: check it, list it, read its tasks, sign its URLs, sync it.

    The iterators stream: they hold one page, or one object's rows, at a time, and close their
    connections when they are exhausted or closed.

    :param storage: name of the storage in the catalog
    :param catalog_conn_id: connection of type ``labelport``
    """

    def __init__(
        self, storage: str, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.storage_name = storage
        self.catalog_conn_id = catalog_conn_id

    @cached_property
    def storage(self) -> Storage:
        """The storage as the catalog describes it. Raises `NotFound` when it does not."""
        from labelport.catalog import storages

        with open_catalog(self.catalog_conn_id) as catalog, catalog.read() as connection:
            return storages.get(connection, self.storage_name)

    @contextmanager
    def get_store(self) -> Iterator[tuple[Bridge, Store]]:
        """The store, open, and the `Bridge` it lives in: ``bridge.run(store.head(key))``."""
        with Bridge() as bridge:
            store = open_store(self.storage)
            try:
                yield bridge, store
            finally:
                bridge.run(store.close())

    def validate_connection(self, *, probe: bool = False) -> list[Check]:
        """Check what a sync will need: the bucket, and for an import its objects, readable.

        :param probe: for an export storage, also write a small object and delete it again

        Raises:
            ConfigurationError: a check failed; the message holds each with its remedy.
            StoreUnavailable: a check failed that may be good the next time.
        """
        from labelport.checking import require, validate

        with self.get_store() as (bridge, store):
            checks = bridge.run(validate(store, self.storage, probe=probe))
        require(self.storage, checks)
        return checks

    def iter_objects(self) -> Iterator[ObjectMeta]:
        """The objects an import would look at: key, size in bytes, etag, time of change in UTC.

        Those under the prefix as a folder that the filter lets through, without folder markers,
        in the order the store lists them. Raises `StoreError`.
        """
        from labelport.listing import listed

        with self.get_store() as (bridge, store):
            for unit in bridge.iterate(listed(store, self.storage)):
                yield from unit.objects

    def iter_keys(self) -> Iterator[str]:
        """The whole keys of `iter_objects`."""
        for found in self.iter_objects():
            yield found.key

    def get_unified_metadata(self, obj: ObjectMeta) -> dict[str, Any]:
        """What is known of an object, under the same names for every cloud.

        ``key``, ``size`` in bytes, ``etag`` without quotes, ``last_modified`` in UTC or None.
        """
        return {
            "key": obj.key,
            "size": obj.size,
            "etag": obj.etag,
            "last_modified": obj.modified,
        }

    def get_data(self, key: str) -> Iterator[TaskRow | Problem]:
        """The tasks that an import would make of the object *key*, in order.

        A row that could not be imported, or the object as a whole, comes as a `Problem`.
        Raises `ObjectNotFound`.
        """
        from labelport.catalog.batches import Batch
        from labelport.comparing import Found
        from labelport.formats import media_row
        from labelport.loading import Limits, Loader

        if self.storage.use_blob_urls:
            yield media_row(self.storage.uri(key))
            return
        with self.get_store() as (bridge, store):
            found = Found([bridge.run(store.head(key))], [], Batch())
            for batch in bridge.iterate(Loader(store, Limits()).batches(found)):
                for piece in batch.pieces:
                    yield from piece.tasks
                yield from batch.problems

    def generate_http_url(self, url: str) -> str:
        """A signed URL to GET the object at *url* (``s3://bucket/key``), for the storage's
        ``presign_seconds``. It is a secret for as long: do not log it.

        Raises:
            ConfigurationError: *url* lies outside the storage's bucket, or the store has no
                signed URLs.
        """
        from labelport.uri import ObjectUri

        uri = ObjectUri.parse(url)
        if (uri.scheme, uri.bucket) != (self.storage.scheme, self.storage.bucket):
            raise ConfigurationError(f"{url} is not in {self.storage.location}")
        with self.get_store() as (bridge, store):
            return bridge.run(store.sign(uri.key, seconds=self.storage.presign_seconds))

    def scan_and_create_links(
        self, *, options: ImportOptions | None = None, shards: int = 1
    ) -> SyncState:
        """Import the storage in this process and return how the sync ended.

        A status of failed is returned, not raised.

        :param shards: how many key ranges to import side by side

        Raises:
            SyncRefused: another run is syncing the storage.
            ConfigurationError: it is no import storage, or its connection is unfit.
        """
        from labelport.importing import ImportOptions, import_storage

        with open_catalog(self.catalog_conn_id) as catalog:
            return import_storage(
                catalog,
                open_store,
                self.storage,
                job=current_job(),
                options=options or ImportOptions(),
                shards=shards,
            )

    def save_annotation(self, annotation_id: int) -> None:
        """Export one annotation now, whether its object is up to date or not.

        In task format its whole task. The ledger says what came of it, too.

        Raises:
            NotFound: the storage's project has no such annotation.
            StoreError: the object could not be written.
            ConfigurationError: it is no export storage, or one that gets snapshots.
        """
        from labelport.errors import NotFound, StoreError

        outcomes = {found.annotation_id: found for found in self.save_annotations([annotation_id])}
        if annotation_id not in outcomes:
            raise NotFound(f"there is no annotation {annotation_id} for {self.storage_name!r}")
        if error := outcomes[annotation_id].error:
            raise StoreError(error)

    def save_annotations(self, annotation_ids: Iterable[int]) -> list[Outcome]:
        """Export some annotations now, and say what became of each.

        An error is in the outcome, and in the ledger. Ids that the storage's project does not
        have are left out. For all annotations use the operators: they can be resumed.

        Raises:
            ConfigurationError: it is no export storage, or one that gets snapshots.
        """
        from labelport.exporting import export_annotations

        outcomes: list[Outcome] = []
        with open_catalog(self.catalog_conn_id) as catalog, self.get_store() as (bridge, store):
            rest = iter(annotation_ids)
            while ids := list(islice(rest, _IDS)):
                outcomes += bridge.run(export_annotations(catalog, store, self.storage, ids))
        return outcomes

    def delete_annotation(self, annotation_id: int) -> bool:
        """Delete the exported object of an annotation that was deleted; whether there was one.

        An annotation that is still in the catalog keeps its object.

        Raises:
            ConfigurationError: the storage may not delete objects, or gets snapshots.
            StoreError: the store refused.
        """
        from labelport.exporting import delete_exported

        with open_catalog(self.catalog_conn_id) as catalog, self.get_store() as (bridge, store):
            return bool(bridge.run(delete_exported(catalog, store, self.storage, [annotation_id])))
