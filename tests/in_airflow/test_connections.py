"""From a connection to what it opens, in every form a connection has."""

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from buckets import aws_connection
from labelport.connections import open_catalog, open_store
from labelport.errors import ConfigurationError, StoreError
from labelport.model import Direction, Storage
from labelport.stores.local import LocalStore
from labelport.stores.memory import MemoryStore
from servers import moto_server

KEYS = {"login": "AKIAOFTHETEST0000000", "password": "the-secret-of-the-test"}


@pytest.fixture(scope="session")
def moto():
    with moto_server() as server:
        yield server


@pytest.fixture
def connect(monkeypatch):
    """Defines the connection ``conn``."""

    def define(conn_type="aws", extra=None, **fields):
        value = {"conn_type": conn_type, "extra": extra or {}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_CONN", json.dumps(value))

    return define


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def place(scheme="s3", bucket="pictures", conn_id="conn"):
    return Storage(1, 1, "photos", Direction.IMPORT, scheme, bucket, conn_id=conn_id)


def signed(storage=None):
    """Where a signed URL of the opened store points, and its query."""

    async def sign():
        store = open_store(storage or place())
        try:
            return await store.sign("a.jpg", seconds=60)
        finally:
            await store.close()

    url = urlsplit(asyncio.run(sign()))
    query = {name.lower(): values[0] for name, values in parse_qs(url.query).items()}
    return f"{url.scheme}://{url.netloc}{url.path}", query


def test_keys_sign_for_amazon_in_the_region(connect):
    connect(extra={"region_name": "eu-central-1"}, **KEYS)

    where, query = signed()

    assert where == "https://pictures.s3.eu-central-1.amazonaws.com/a.jpg"
    assert query["x-amz-credential"].startswith("AKIAOFTHETEST0000000/")
    assert "/eu-central-1/s3/" in query["x-amz-credential"]


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        ({}, "https://pictures.s3.us-east-1.amazonaws.com/a.jpg"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9/pictures/a.jpg"),
        (
            {"service_config": {"s3": {"endpoint_url": "http://127.0.0.1:9/base"}}},
            "http://127.0.0.1:9/base/pictures/a.jpg",
        ),
        (
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
            "https://s3.us-east-1.amazonaws.com/pictures/a.jpg",
        ),
        (
            {
                "endpoint_url": "https://store.test",
                "config_kwargs": {"s3": {"addressing_style": "virtual"}},
            },
            "https://pictures.store.test/a.jpg",
        ),
        (
            {"config_kwargs": {"use_dualstack_endpoint": True}, "region_name": "us-west-2"},
            "https://pictures.s3.dualstack.us-west-2.amazonaws.com/a.jpg",
        ),
        (
            {
                "endpoint_url": "http://inside:9",
                "service_config": {"s3": {"public_endpoint_url": "https://outside.test"}},
            },
            "https://outside.test/pictures/a.jpg",
        ),
    ],
    ids=["amazon", "endpoint", "service", "path", "virtual", "dualstack", "public"],
)
def test_the_bucket_is_where_the_extra_says(connect, extra, where):
    connect(extra=extra, **KEYS)

    assert signed()[0] == where


def test_a_session_token_is_signed_with(connect):
    connect(extra={"aws_session_token": "token-of-the-test"}, **KEYS)

    assert signed()[1]["x-amz-security-token"] == "token-of-the-test"


def test_an_anonymous_connection_signs_nothing(connect):
    connect(extra={"config_kwargs": {"signature_version": "unsigned"}})

    assert signed()[1] == {}


def test_a_profile_brings_its_keys(connect, tmp_path):
    (tmp_path / "credentials").write_text(
        "[labels]\naws_access_key_id = AKIAOFTHEPROFILE0000\naws_secret_access_key = secret\n"
    )
    connect(extra={"profile_name": "labels"})

    assert signed()[1]["x-amz-credential"].startswith("AKIAOFTHEPROFILE0000/")


def test_without_a_connection_the_environment_counts(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    where, query = signed(place(conn_id=None))

    assert where == "http://127.0.0.1:9/pictures/a.jpg"
    assert query["x-amz-credential"].startswith("AKIAENVIRONMENT00000/")


def test_an_assumed_role_signs_and_is_renewed(connect, moto):
    """A quarter of an hour is so short that botocore renews it at every look."""
    sts = {"service_config": {"sts": {"endpoint_url": moto.endpoint}}}
    role = {
        "role_arn": "arn:aws:iam::123456789012:role/labels",
        "assume_role_kwargs": {"DurationSeconds": 900},
    }
    connect(extra={"region_name": "us-east-1", **sts, **role}, **KEYS)

    async def two_credentials():
        store = open_store(place())
        source = store._dialect.credentials
        source._seconds = 0
        return await source(), await source()

    first, second = asyncio.run(two_credentials())

    assert first.access_key_id.startswith("ASIA")
    assert first.session_token
    assert second != first


def test_a_role_that_cannot_be_assumed_is_a_configuration_error(connect):
    sts = {"service_config": {"sts": {"endpoint_url": "http://127.0.0.1:9"}}}
    role = {"role_arn": "arn:aws:iam::123456789012:role/labels"}
    connect(extra={"region_name": "us-east-1", **sts, **role}, **KEYS)

    with pytest.raises(ConfigurationError, match="storage 'photos': connection 'conn'") as caught:
        open_store(place())

    assert KEYS["password"] not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no AWS credentials"),
        ({"conn_type": "gcp"}, "of type 'gcp'"),
        ({"extra": {"profile_name": "none"}}, "none"),
        ({"extra": {"verify": "/no/such/file.pem"}, **KEYS}, "holds no certificates"),
    ],
    ids=["nothing", "type", "profile", "verify"],
)
def test_an_unfit_connection_names_the_remedy(connect, fields, message):
    connect(**fields)

    with pytest.raises(ConfigurationError, match=message):
        open_store(place())


def test_a_connection_that_is_not_defined_is_not_replaced_by_what_is_at_hand(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(ConfigurationError, match="AIRFLOW_CONN_GONE"):
        open_store(place(conn_id="gone"))


@pytest.mark.parametrize("scheme", ["gs", "azure-blob"])
def test_other_clouds_arrive_later(scheme):
    with pytest.raises(ConfigurationError, match="later release"):
        open_store(place(scheme))


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(ConfigurationError, match="known: s3"):
        open_store(place("ftp"))


def test_memory_needs_no_connection():
    assert isinstance(open_store(place("memory", conn_id=None)), MemoryStore)


def test_files_live_below_the_path_of_an_fs_connection(connect, tmp_path):
    connect("fs", extra={"path": str(tmp_path)})

    assert isinstance(open_store(place("file")), LocalStore)


def test_files_live_below_the_root_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LABELPORT_LOCAL_ROOT", str(tmp_path))

    assert isinstance(open_store(place("file", conn_id=None)), LocalStore)


@pytest.mark.parametrize("root", [None, "", "relative/folder"])
def test_without_an_absolute_root_no_file_can_be_reached(monkeypatch, root):
    if root is not None:
        monkeypatch.setenv("LABELPORT_LOCAL_ROOT", root)

    with pytest.raises(ConfigurationError, match="LABELPORT_LOCAL_ROOT"):
        open_store(place("file", conn_id=None))


def test_a_real_bucket_can_be_listed(bucket):
    bucket.put({"a": b"1"})

    async def keys():
        store = open_store(place(bucket=bucket.name, conn_id="weed"))
        found = [meta.key async for page in store.pages() for meta in page.objects]
        await store.close()
        return found

    assert asyncio.run(keys()) == ["a"]


def test_a_wrong_secret_is_refused_without_being_told(weed, bucket, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", aws_connection(weed, password="not-the-secret"))

    async def listing():
        store = open_store(place(bucket=bucket.name, conn_id="wrong"))
        try:
            return [page async for page in store.pages()]
        finally:
            await store.close()

    with pytest.raises(StoreError) as caught:
        asyncio.run(listing())

    assert "not-the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"extra": {"sqlite_path": "/data/labels.db"}}, "sqlite:////data/labels.db"),
        (
            {"host": "db", "port": 5433, "schema": "labels", "login": "me", "password": "p@:/ss"},
            "postgresql+psycopg://me:***@db:5433/labels",
        ),
        (
            {"host": "db", "schema": "labels", "extra": {"sslmode": "verify-full"}},
            "postgresql+psycopg://db/labels?sslmode=verify-full",
        ),
    ],
    ids=["sqlite", "postgresql", "options"],
)
def test_a_connection_names_the_catalog(connect, fields, url):
    connect("labelport", **fields)

    with open_catalog("conn") as catalog:
        assert repr(catalog) == f"Catalog({url!r})"
        assert catalog.engine.url.password == fields.get("password")


@pytest.mark.parametrize(
    "fields",
    [{}, {"host": "db", "extra": {"sqlite_path": "/data/labels.db"}}],
    ids=["neither", "both"],
)
def test_a_catalog_connection_names_one_database(connect, fields):
    connect("labelport", **fields)

    with pytest.raises(ConfigurationError, match="either"):
        open_catalog("conn")


def test_a_catalog_connection_may_be_written_as_a_uri(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_CONN", "labelport://me:secret@db:5433/labels")

    with open_catalog("conn") as catalog:
        assert repr(catalog) == "Catalog('postgresql+psycopg://me:***@db:5433/labels')"


def test_without_the_default_connection_the_environment_names_the_catalog(monkeypatch):
    monkeypatch.setenv("LABELPORT_CATALOG_URL", "sqlite:////data/labels.db")

    with open_catalog() as catalog:
        assert repr(catalog) == "Catalog('sqlite:////data/labels.db')"


def test_a_catalog_that_nobody_names_is_not_made_up(monkeypatch):
    monkeypatch.delenv("LABELPORT_CATALOG_URL", raising=False)

    with pytest.raises(ConfigurationError, match="labelport_default"):
        open_catalog()
