"""The hooks, as somebody's own task would use them."""

import json
import urllib.request

import pytest

from labelport import syncing
from labelport.airflow.hooks import CatalogHook, StorageHook
from labelport.catalog import Catalog, annotations
from labelport.errors import (
    ConfigurationError,
    NotFound,
    ObjectNotFound,
    StoreError,
    SyncRefused,
)
from labelport.model import Problem, Status, TaskRow


@pytest.fixture
def hook(bucket, add_storage):
    bucket.put({"img/a.json": b'{"text": "a"}', "img/b.json": b'[{"text": "b"}, 7]', "c": b"x"})
    add_storage(prefix="img")
    return StorageHook("photos")


def test_a_catalog_hook_opens_the_catalog(catalog):
    with CatalogHook().get_catalog() as opened:
        assert isinstance(opened, Catalog)


def test_a_good_catalog_tests_well(catalog):
    ok, message = CatalogHook().test_connection()

    assert ok
    assert "up to date" in message


def test_an_empty_catalog_tests_badly_with_the_remedy(monkeypatch, tmp_path):
    extra = {"sqlite_path": str(tmp_path / "empty.db")}
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "labelport", "extra": extra}))

    ok, message = CatalogHook("empty").test_connection()

    assert not ok
    assert "labelport db upgrade" in message


def test_airflow_makes_the_hook_of_a_connection(catalog):
    from airflow.sdk import Connection

    assert Connection.get("labelport_default").get_hook().test_connection()[0]


def test_an_unknown_storage_is_not_found(catalog):
    with pytest.raises(NotFound, match="nowhere"):
        StorageHook("nowhere").validate_connection()


def test_listing_shows_what_an_import_would_see(hook):
    objects = list(hook.iter_objects())

    assert (
        list(hook.iter_keys()) == [found.key for found in objects] == ["img/a.json", "img/b.json"]
    )


def test_a_listing_may_be_left_halfway(hook):
    listing = hook.iter_keys()

    assert next(listing) == "img/a.json"
    listing.close()


def test_metadata_has_the_same_names_for_every_cloud(hook):
    (found, *_) = hook.iter_objects()
    metadata = hook.get_unified_metadata(found)

    assert set(metadata) == {"key", "size", "etag", "last_modified"}
    assert metadata["size"] == 13
    assert metadata["last_modified"].tzinfo is not None


def test_data_comes_as_the_rows_an_import_would_make(hook):
    good, bad = hook.get_data("img/b.json")

    assert isinstance(good, TaskRow)
    assert json.loads(good.data) == {"text": "b"}
    assert isinstance(bad, Problem)
    assert (bad.key, bad.row) == ("img/b.json", 1)


def test_data_of_a_picture_is_its_uri(bucket, add_storage):
    add_storage("media", use_blob_urls=True)

    (row,) = StorageHook("media").get_data("a.jpg")

    assert json.loads(row.data) == {"$undefined$": f"s3://{bucket.name}/a.jpg"}


def test_data_of_no_object_raises(hook):
    with pytest.raises(ObjectNotFound):
        list(hook.get_data("img/none.json"))


def test_a_url_opens_the_object_without_credentials(hook, bucket):
    url = hook.generate_http_url(f"s3://{bucket.name}/img/a.json")

    with urllib.request.urlopen(url) as response:  # noqa: S310 # a server of ours
        assert response.read() == b'{"text": "a"}'


def test_a_url_outside_the_bucket_is_refused(hook):
    with pytest.raises(ConfigurationError, match="not in s3://"):
        hook.generate_http_url("s3://another/a.json")


def test_a_good_storage_validates(hook):
    assert [check.name for check in hook.validate_connection()] == ["bucket", "objects", "read"]


def test_a_storage_without_objects_does_not_validate(add_storage):
    add_storage(prefix="nothing")

    with pytest.raises(ConfigurationError, match=r"storage 'photos': objects failed: .* no object"):
        StorageHook("photos").validate_connection()


def test_scanning_imports(hook):
    state = hook.scan_and_create_links()

    assert state.status is Status.COMPLETED_WITH_ERRORS
    assert (state.counters.created, state.counters.errors) == (2, 1)


def test_scanning_is_refused_while_another_run_syncs(hook, catalog):
    syncing.queue(catalog, hook.storage, run_id="other", job="other/run")

    with pytest.raises(SyncRefused, match="other/run"):
        hook.scan_and_create_links()


@pytest.fixture
def exported(labels, annotate):
    """A hook of an export storage, and the ids of two annotations."""
    return StorageHook("labels"), annotate(2)


def test_one_annotation_is_exported_alone(exported, bucket):
    hook, (one, _) = exported

    hook.save_annotation(one)

    (body,) = bucket.get("out/").values()
    assert json.loads(body)["id"] == one


def test_annotations_are_exported_with_what_became_of_each(exported, bucket):
    hook, ids = exported

    outcomes = hook.save_annotations([*ids, 999])

    assert [(found.annotation_id, found.error) for found in outcomes] == [(n, None) for n in ids]
    assert len(bucket.get("out/")) == 2


def test_an_annotation_that_is_not_there_is_not_exported(exported):
    with pytest.raises(NotFound, match="999"):
        exported[0].save_annotation(999)


def test_an_annotation_that_cannot_be_written_raises(exported, bucket):
    hook, (one, _) = exported
    bucket.client.delete_bucket(Bucket=bucket.name)

    with pytest.raises(StoreError):
        hook.save_annotation(one)


def test_the_object_of_a_deleted_annotation_is_deleted(exported, bucket, catalog):
    hook, (one, two) = exported
    hook.save_annotations([one, two])
    with catalog.begin() as connection:
        annotations.delete(connection, one)

    assert hook.delete_annotation(one)
    assert not hook.delete_annotation(one)
    assert not hook.delete_annotation(two)
    assert len(bucket.get("out/")) == 1
