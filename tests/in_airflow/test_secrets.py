"""Nothing that opens a bucket or a catalog is ever written down."""

import json

import pytest

from buckets import aws_connection

WRONG = "WRONG+SECRET/of-forty-characters-long-0000"
SIGNATURE = "X-Amz-Signature"


@pytest.fixture
def written(home, tmp_path, capfd):
    """All that a run left behind: both databases, the logs, what it printed."""

    def read() -> bytes:
        files = [path for folder in (home, tmp_path) for path in folder.rglob("*")]
        printed = capfd.readouterr()
        left = b"\n".join(path.read_bytes() for path in files if path.is_file())
        return left + printed.out.encode() + printed.err.encode()

    return read


def assert_silent(left: bytes, *secrets: str) -> None:
    assert len(left) > 10_000
    for secret in (*secrets, SIGNATURE):
        assert secret.encode() not in left
        assert json.dumps(secret)[1:-1].encode() not in left


def test_a_wrong_secret_key_is_written_nowhere(
    run_dag, weed, bucket, add_storage, monkeypatch, written
):
    bucket.put({"a.json": b"{}"})
    add_storage()
    monkeypatch.setenv("AIRFLOW_CONN_WEED", aws_connection(weed, password=WRONG))

    assert run_dag("import_storage", storage="photos").state == "failed"
    assert run_dag("validate").state == "failed"
    assert_silent(written(), WRONG)


def test_the_right_secret_key_is_written_nowhere(run_dag, weed, bucket, add_storage, written):
    bucket.put({"good.json": b'{"a": 1}', "bad.json": b"{nope"})
    add_storage()

    assert run_dag("import_storage", storage="photos").state == "success"
    assert_silent(written(), weed.secret_access_key)


def test_a_denied_bucket_is_an_error_without_its_signed_url(
    run_dag, weed, bucket, add_storage, monkeypatch, written
):
    """An anonymous client is refused every request."""
    add_storage()
    anonymous = {
        "endpoint_url": weed.endpoint,
        "config_kwargs": {"signature_version": "unsigned"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_WEED", json.dumps({"conn_type": "aws", "extra": anonymous}))

    assert run_dag("import_storage", storage="photos").state == "failed"
    left = written()
    assert b"AccessDenied" in left
    assert_silent(left, weed.secret_access_key)


def test_the_catalogs_password_is_written_nowhere(run_dag, monkeypatch, written):
    connection = {
        "conn_type": "labelport",
        "host": "127.0.0.1",
        "port": 9,
        "login": "labelport",
        "password": WRONG,
        "schema": "labelport",
    }
    monkeypatch.setenv("AIRFLOW_CONN_LABELPORT_DEFAULT", json.dumps(connection))

    assert run_dag("strict").state == "failed"
    assert_silent(written(), WRONG)
