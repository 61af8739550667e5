"""Whether a storage's settings make sense, before they are saved. Messages name the remedy."""

from __future__ import annotations

import re

from labelport.catalog.naming import check_name
from labelport.errors import ConfigurationError
from labelport.key_template import check_template
from labelport.model import Direction, ExportFormat, Storage

SCHEMES = ("s3", "gs", "azure-blob", "file", "memory")
MAX_PRESIGN_SECONDS = 604_800  # a week: the longest that S3 signs for
MAX_KEY_BYTES = 1024  # of S3 and GCS; Azure's 1,024 characters are never fewer bytes

_CONN_ID = re.compile(r"[\w.\-/\\:()#!]{1,200}")  # what Airflow accepts
_ACCESS_KEY = re.compile(r"A[A-Z]{3}[A-Z0-9]{16}")  # of AWS


def validate(storage: Storage) -> None:
    """Raise `ConfigurationError` at the first setting of *storage* that cannot work."""
    check_name("storage name", storage.name)
    _check_location(storage)
    _check_conn_id(storage.conn_id)
    _check_regex(storage.regex_filter)
    if not 1 <= storage.presign_seconds <= MAX_PRESIGN_SECONDS:
        raise ConfigurationError(
            f"presign_seconds is {storage.presign_seconds}; choose 1 to {MAX_PRESIGN_SECONDS}, "
            "the week that clouds sign for at most"
        )
    _check_export(storage)


def _check_location(storage: Storage) -> None:
    if storage.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigurationError(f"{storage.scheme}:// is no store that Labelport knows: {known}")
    if not storage.bucket:
        raise ConfigurationError("the bucket is empty; write scheme://bucket/prefix")
    if re.search(r"[\s@?#]", storage.bucket):
        # Not echoed: what comes before an @ is often a secret.
        raise ConfigurationError(
            "the bucket holds a space or one of @?#; write scheme://bucket/prefix, and put "
            "credentials and options into an Airflow connection"
        )
    if len(storage.prefix.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        raise ConfigurationError(f"the prefix is longer than {MAX_KEY_BYTES} bytes: no key has it")
    if "\0" in storage.prefix:
        raise ConfigurationError("the prefix holds a NUL character, which no database stores")


def _check_conn_id(conn_id: str | None) -> None:
    """The value is never echoed: whoever gets this wrong may have pasted a secret."""
    if conn_id is None:
        return
    if "://" in conn_id or not _CONN_ID.fullmatch(conn_id) or _ACCESS_KEY.fullmatch(conn_id):
        raise ConfigurationError(
            "conn_id must be the id of an Airflow connection, such as aws_labels: letters, "
            "digits, _ - . up to 200 characters. Credentials and URIs go into the connection "
            "itself: airflow connections add"
        )


def _check_regex(regex_filter: str | None) -> None:
    if regex_filter is None:
        return
    try:
        re.compile(regex_filter)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigurationError(
            f"regex_filter {regex_filter!r} is not a regular expression: {error}. It is matched "
            r"from the start of the whole key; an example: .*\.jpe?g$"
        ) from error


def _check_export(storage: Storage) -> None:
    if storage.export_format not in list(ExportFormat):
        raise ConfigurationError(
            f"there is no export format {storage.export_format!r}; choose "
            + ", ".join(ExportFormat)
        )
    if storage.rows_per_file < 1:
        raise ConfigurationError(
            f"rows_per_file is {storage.rows_per_file}; a file holds at least one annotation"
        )
    if storage.key_template is None:
        return
    if storage.direction is not Direction.EXPORT:
        raise ConfigurationError(
            "key_template is of exports; leave it out, or add the storage with direction export"
        )
    check_template(storage.key_template, ExportFormat(storage.export_format))


def overlap(one: Storage, other: Storage) -> bool:
    """Whether some key lies in both storages, leaving their filters aside."""
    if (one.scheme, one.bucket) != (other.scheme, other.bucket):
        return False
    outer, inner = sorted((one, other), key=lambda storage: len(storage.folder))
    if outer.folder == inner.folder:
        return True
    return outer.recursive_scan and inner.folder.startswith(outer.folder)
