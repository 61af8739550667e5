"""S3's XML: listings, where every microsecond a key counts, and refusals.

Read with expat's events rather than a tree: no document type is let in, so there are no entities
to expand, and nothing is built that is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.parsers import expat

from labelport.model import ObjectMeta
from labelport.stores._dialect import Refusal

#: Elements that belong to the document, though they may stand before or after its entries.
_OUTER = frozenset({"EncodingType", "IsTruncated", "NextContinuationToken"})


class Document(NamedTuple):
    """What an XML document says, without its tree."""

    root: str  #: the name of the outermost element
    entries: dict[str, list[dict[str, str]]]  #: by element name, the texts inside each by name
    fields: dict[str, str]  #: the texts outside of entries


def parse_listing(body: bytes) -> tuple[list[ObjectMeta], list[str], str | None]:
    """The objects, the common prefixes and the next continuation token of a ListObjectsV2 answer.

    Raises:
        ValueError: it is no whole ListBucketResult.
    """
    root, entries, fields = _parse(body, ("Contents", "CommonPrefixes"))
    if root != "ListBucketResult":
        raise ValueError("another document")
    try:
        # Servers that do not know encoding-type do not echo it either.
        decoded = _unquoted if fields.get("EncodingType") == "url" else list
        keys = decoded([row["Key"] for row in entries["Contents"]])
        prefixes = decoded([row["Prefix"] for row in entries["CommonPrefixes"]])
        objects = [
            ObjectMeta(
                key,
                int(row["Size"]),
                row["ETag"].strip('"'),
                datetime.fromisoformat(row["LastModified"]),
            )
            for key, row in zip(keys, entries["Contents"], strict=True)
        ]
    except KeyError as missing:
        raise ValueError(f"an entry lacks {missing}") from None
    if fields.get("IsTruncated") != "true":
        return objects, prefixes, None
    if not (token := fields.get("NextContinuationToken")):
        raise ValueError("more is said to follow, without a token")
    return objects, prefixes, token


def parse_refusal(body: bytes) -> tuple[Refusal, str]:
    """The code and message of an Error document, and the region it names or ""."""
    try:
        root, _, fields = _parse(body, ())
    except ValueError:
        return Refusal(), ""
    if root != "Error":
        return Refusal(), ""
    return Refusal(fields.get("Code", ""), fields.get("Message", "")), fields.get("Region", "")


def _unquoted(keys: Sequence[str]) -> list[str]:
    """S3 writes a space as ``+``; bytes that are not UTF-8 become surrogates."""
    # One call for a page costs a tenth of a call for each key.
    page = unquote_plus("\n".join(keys), errors="surrogateescape").split("\n")
    if len(page) == len(keys):
        return page
    return [unquote_plus(key, errors="surrogateescape") for key in keys]


def _parse(body: bytes, entry_names: Iterable[str]) -> Document:
    """Read a whole document. Raises `ValueError` when it is malformed or has a document type."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    entries: dict[str, list[dict[str, str]]] = {name: [] for name in entry_names}
    outer: dict[str, str] = {}
    fields: dict[str, str] = {}
    text: list[str] = []
    name = ""

    def started(_name: str, _attributes: dict[str, str]) -> None:
        text.clear()

    def ended(element: str) -> None:
        nonlocal fields, name
        name = element
        if element in entries:
            entries[element].append(fields)
            fields = {}
        elif element in _OUTER:
            outer[element] = "".join(text)
        else:
            fields[element] = "".join(text)

    def refuse(*_declaration: object) -> None:
        raise ValueError("a document type")

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as malformed:
        raise ValueError(f"malformed XML ({malformed})") from None
    return Document(name, entries, fields | outer)
