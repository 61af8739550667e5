"""What an answer says of an object: nothing that the object's author could turn against us. Pure.

Objects are strangers' files on our origin. A type that browsers could run is never theirs to
choose: what is not known to be inert is an attachment, and scripts and styles lose their type.
"""

from __future__ import annotations

import mimetypes
import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

from labelport.model import ObjectMeta
from labelport_proxy.fields import Pair

OCTETS = "application/octet-stream"

_UNTOLD = ("", OCTETS, "binary/octet-stream", "application/x-www-form-urlencoded")
_TYPE = re.compile(
    r"([a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126})"
    r"(?:[ \t]*;[ \t]*charset=\"?([a-z0-9_.:-]{1,40})\"?)?(?:[ \t]*;.*)?",
    re.IGNORECASE | re.ASCII,
)
#: What a page could load as code or style, whatever else it may be.
_CODE = re.compile(r"script|css|wasm|flash|mhtml|multipart/|message/", re.IGNORECASE)
_INERT = re.compile(
    r"(?:image/(?!svg)|audio/|video/|font/)[a-z0-9!#$&^_.-]+"
    r"|text/(?:plain|csv|tab-separated-values|vtt)|application/(?:pdf|json|x-ndjson|ogg)",
    re.IGNORECASE,
)
_ENCODINGS = ("gzip", "br", "deflate", "zstd")

_TYPES = mimetypes.MimeTypes()  # the library's own table: the machine's may be any
for _suffix, _type in {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".jsonl": "application/x-ndjson",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".vtt": "text/vtt",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webp": "image/webp",
}.items():
    _TYPES.add_type(_type, _suffix)

#: On every answer that carries an object.
GUARDS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"accept-ranges", b"bytes"),
)


def guessed_type(key: str) -> str | None:
    """The content type that *key*'s ending stands for; None too for what is compressed."""
    kind, encoding = _TYPES.guess_type(key.rpartition("/")[2], strict=False)
    return None if encoding else kind


def content_type(meta: ObjectMeta) -> str:
    """The type to serve an object with: the store's if it tells one, else by the key's ending."""
    return _told_type(meta.content_type) or _harmless(guessed_type(meta.key) or OCTETS)


@lru_cache(maxsize=1024)
def _told_type(text: str) -> str:
    """The type that a store tells, made harmless; empty if it tells none."""
    told = _TYPE.fullmatch(text.strip())
    kind = told[1].lower() if told else ""
    if told is None or kind in _UNTOLD:
        return ""
    return _harmless(kind) + (f"; charset={told[2].lower()}" if told[2] else "")


def _harmless(kind: str) -> str:
    return OCTETS if _CODE.search(kind) else kind


def disposition(kind: str, key: str) -> str:
    """Whether a browser may show an object of this type; what it is called when it is saved."""
    shown = "inline" if _is_inert(kind) else "attachment"
    name = key.rstrip("/").rpartition("/")[2] or "object"
    return f"{shown}; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


@lru_cache(maxsize=1024)
def _is_inert(kind: str) -> bool:
    return _INERT.fullmatch(kind.partition(";")[0]) is not None


def object_headers(meta: ObjectMeta, etag: str | None) -> list[Pair]:
    """What is said of the object, whatever part of it is served."""
    kind = content_type(meta)
    found = [
        (b"content-type", kind.encode("ascii")),
        (b"content-disposition", disposition(kind, meta.key).encode("ascii")),
        *GUARDS,
    ]
    if meta.content_encoding.lower() in _ENCODINGS:
        found.append((b"content-encoding", meta.content_encoding.lower().encode()))
    return found + validators(meta, etag)


def validators(meta: ObjectMeta, etag: str | None) -> list[Pair]:
    """By what a browser can ask whether its copy is still good."""
    found = []
    if etag:
        found.append((b"etag", etag.encode("ascii")))
    if meta.modified:
        found.append((b"last-modified", _http_date(meta.modified)))
    return found


@lru_cache(maxsize=4096)
def _http_date(moment: datetime) -> bytes:
    return format_datetime(moment, usegmt=True).encode()


class Tagger:
    """Makes ETags that are a secret's, a user's and an object's at once.

    So they tell nobody the object's own (an MD5 of its bytes), and change with the rights.
    """

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode(), person=b"labelport etag").digest()

    def tag(self, meta: ObjectMeta, access: str) -> str | None:
        """The ETag of one version of an object for *access*, in quotes; None if it has none."""
        if not meta.etag:
            return None
        text = f"{access}\0{meta.key}\0{meta.etag}".encode(errors="surrogatepass")
        return f'"{blake2b(text, key=self._key, digest_size=16).hexdigest()}"'
