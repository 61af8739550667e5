"""S3's XML: listings, where every microsecond a key counts, and refusals.

Read with expat's events rather than a tree: no document type is let in, so there are no entities
to expand, and nothing is built that is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from urllib.parse import unquote_plus
from xml.parsers import expat

from labelport.model import ObjectMeta
from labelport.stores._dialect import Refusal


def parse_listing(body: bytes) -> tuple[list[ObjectMeta], list[str], str | None]:
    """The objects, the common prefixes and the next continuation token of a ListObjectsV2 answer.

    Raises:
        ValueError: it is no whole ListBucketResult.
    """
    rows: list[dict[str, str]] = []
    prefixes: list[str] = []
    fields: dict[str, str] = {}
    outer: dict[str, str] = {}

    def end(name: str, text: str) -> None:
        nonlocal fields
        if name == "Contents":
            rows.append(fields)
            fields = {}
        elif name == "CommonPrefixes":
            prefixes.append(fields["Prefix"])
            fields = {}
        elif name in _OUTER:
            outer[name] = text
        else:
            fields[name] = text

    try:
        if _parse(body, end) != "ListBucketResult":
            raise ValueError("another document")
        objects = [_meta(row) for row in rows]
    except KeyError as missing:
        raise ValueError(f"an entry lacks {missing}") from None
    if outer.get("EncodingType") == "url":
        # Servers that do not know encoding-type do not echo it either.
        objects = [o._replace(key=_unquoted(o.key)) if _quoted(o.key) else o for o in objects]
        prefixes = [_unquoted(prefix) for prefix in prefixes]
    token = outer.get("NextContinuationToken")
    if outer.get("IsTruncated") != "true":
        return objects, prefixes, None
    if not token:
        raise ValueError("more is said to follow, without a token")
    return objects, prefixes, token


def parse_refusal(body: bytes) -> tuple[Refusal, str]:
    """The code and message of an Error document, and the region it names or ""."""
    fields: dict[str, str] = {}
    try:
        root = _parse(body, fields.__setitem__)
    except ValueError:
        return Refusal(), ""
    if root != "Error":
        return Refusal(), ""
    return Refusal(fields.get("Code", ""), fields.get("Message", "")), fields.get("Region", "")


#: Elements that belong to the listing and not to an entry of it.
_OUTER = frozenset({"EncodingType", "IsTruncated", "NextContinuationToken"})


def _meta(row: dict[str, str]) -> ObjectMeta:
    return ObjectMeta(
        row["Key"],
        int(row["Size"]),
        row["ETag"].strip('"'),
        datetime.fromisoformat(row["LastModified"]),
    )


def _quoted(key: str) -> bool:
    return "%" in key or "+" in key


def _unquoted(key: str) -> str:
    """S3 writes a space as ``+``; bytes that are not UTF-8 become surrogates."""
    return unquote_plus(key, errors="surrogateescape")


def _parse(body: bytes, end: Callable[[str, str], None]) -> str:
    """Call *end* with the name and text of every element, and return the root's name."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    text: list[str] = []
    name = ""

    def started(_name: str, _attributes: dict[str, str]) -> None:
        text.clear()

    def ended(element: str) -> None:
        nonlocal name
        name = element
        end(element, "".join(text))
        text.clear()

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
    return name
