"""``If-…`` headers: whether to answer at all, and with a range or whole (RFC 9110, 13). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

#: The headers that are judged by what the object is like now.
PRECONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")

#: One of a list; what is none is passed over.
_TAG = re.compile(r'(?:^|(?<=[ \t,]))(W/)?("[\x21\x23-\x7e\x80-\xff]*")(?=[ \t]*(?:,|$))')
#: Today's form, and the two that RFC 9110 has recipients understand as well.
_DATE = re.compile(
    r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}",
    re.ASCII,
)


class Verdict(Enum):
    """What preconditions come to."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    FAILED = "precondition failed"


def judge(headers: Mapping[str, str], etag: str | None, modified: datetime | None) -> Verdict:
    """What the preconditions of a GET or HEAD come to.

    :param etag: with its quotes, strong; None where the object has none
    """
    if (wanted := headers.get("if-match")) is not None:
        if not _matches(wanted, etag, weak=False):
            return Verdict.FAILED
    elif _is_after(modified, headers.get("if-unmodified-since")):
        return Verdict.FAILED
    if (known := headers.get("if-none-match")) is not None:
        return Verdict.NOT_MODIFIED if _matches(known, etag, weak=True) else Verdict.PROCEED
    since = headers.get("if-modified-since")
    if modified and _date(since) and not _is_after(modified, since):
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def range_holds(if_range: str | None, etag: str | None, modified: datetime | None) -> bool:
    """Whether a range is served, and not the whole object because it has changed."""
    if if_range is None:
        return True
    if '"' in if_range:
        return if_range == etag
    date = _date(if_range)
    return date is not None and modified is not None and modified.replace(microsecond=0) == date


def _matches(header: str, etag: str | None, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    tags = _TAG.findall(header)
    return any(tag == etag and (weak or not is_weak) for is_weak, tag in tags)


def _is_after(modified: datetime | None, header: str | None) -> bool:
    date = _date(header)
    return date is not None and modified is not None and modified.replace(microsecond=0) > date


def _date(header: str | None) -> datetime | None:
    """An HTTP date; None for what is none, which is as if the header were not there."""
    if header is None or not _DATE.fullmatch(header):
        return None
    try:
        return parsedate_to_datetime(header).replace(tzinfo=UTC)
    except ValueError:
        return None
