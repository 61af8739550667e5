"""Which storage answers for a URI, and task data whose URIs lead to the proxy instead. Pure."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from labelport.model import Direction, Storage
from labelport.uri import ObjectUri
from labelport.uris import UNSPEAKABLE, replace_uris, uris_in

#: What a proxy URL belongs to: a task, or a project as a whole.
Kind = Literal["tasks", "projects"]

_BASE64 = re.compile(r"([\w-]*|[A-Za-z0-9+/]*)(={0,2})", re.ASCII)


class Answer(NamedTuple):
    """The storage that answers for a URI, and those of the same folder that could as well."""

    storage: Storage | None
    rivals: tuple[Storage, ...] = ()


@dataclass(frozen=True)
class Resolution:
    """Task data with other URLs, and what about them a person should know.

    ``ambiguous`` names all the storages that could answer, first the one that does.
    """

    data: object
    unresolved: tuple[str, ...]  #: URIs that no storage answers for, left as they are
    ambiguous: tuple[tuple[str, tuple[Storage, ...]], ...]


def storage_for(
    uri: ObjectUri, storages: Sequence[Storage], *, prefer: int | None = None
) -> Answer:
    """The import storage among a project's whose folder covers *uri*; the deepest folder wins.

    :param prefer: the id of the storage that brought the task. It wins among equals, which differ
        in their credentials at most; without it, the oldest does.
    """
    covering = [storage for storage in storages if _covers(storage, uri)]
    depth = max((len(storage.folder) for storage in covering), default=0)
    equals = [storage for storage in covering if len(storage.folder) == depth]
    equals.sort(key=lambda storage: (storage.id != prefer, storage.id))
    return Answer(equals[0], tuple(equals[1:])) if equals else Answer(None)


def _covers(storage: Storage, uri: ObjectUri) -> bool:
    return (
        storage.direction is Direction.IMPORT
        and (storage.scheme, storage.bucket) == (uri.scheme, uri.bucket)
        and uri.key.startswith(storage.folder)
    )


def refers(data: str, uri: str) -> bool:
    """Whether a task's *data*, JSON text, holds exactly this URI, and no longer one."""
    escapes = "\\" in data or "&" in data
    return (escapes or uri in data) and uri in _uris_of(data)


@lru_cache(maxsize=16)
def _uris_of(data: str) -> frozenset[str]:
    """The URIs in JSON text. All images of a task are asked for at about the same time."""
    return frozenset(uris_in(msgspec.json.decode(data)))


def resolve(
    data: object,
    storages: Sequence[Storage],
    to_url: Callable[[str], str],
    *,
    prefer: int | None = None,
) -> Resolution:
    """Parsed task data with the URL of each URI that one of a project's *storages* answers for.

    :param prefer: see `storage_for`.
    """
    answers = {
        uri: storage_for(ObjectUri.parse(uri), storages, prefer=prefer)
        for uri in dict.fromkeys(uris_in(data))
    }
    return Resolution(
        replace_uris(data, lambda uri: to_url(uri) if answers[uri].storage else None),
        tuple(uri for uri, answer in answers.items() if answer.storage is None),
        tuple(
            (uri, (answer.storage, *answer.rivals))
            for uri, answer in answers.items()
            if answer.storage and answer.rivals
        ),
    )


def proxy_path(kind: Kind, number: int) -> str:
    """The path below the proxy's base URL where a task's or project's objects are asked for."""
    return f"/{kind}/{number}/resolve/"


def proxy_url(base: str, kind: Kind, number: int, uri: str) -> str:
    """Where the proxy at *base* serves *uri* to those who may see this task or project."""
    fileuri = urlsafe_b64encode(uri.encode()).decode().rstrip("=")
    return f"{base.rstrip('/')}{proxy_path(kind, number)}?fileuri={fileuri}"


def decode_fileuri(text: str) -> str:
    """The URI of a proxy URL: base64 of either alphabet, padded or not, or plain with a ``://``.

    Raises:
        ValueError: it is neither, or the URI holds control characters or half a surrogate pair.
    """
    uri = text if "://" in text else _from_base64(text)
    if "://" not in uri:
        raise ValueError("fileuri names no object: it must hold scheme://bucket/key")
    if UNSPEAKABLE.search(uri):
        raise ValueError("fileuri holds control characters or text that is not UTF-8")
    return uri


def _from_base64(text: str) -> str:
    parts = _BASE64.fullmatch(text)
    canonical = parts[1].replace("+", "-").replace("/", "_") if parts else ""
    padding = "=" * (-len(canonical) % 4)
    if not parts or len(padding) == 3 or parts[2] not in ("", padding):
        raise ValueError("fileuri is neither base64 nor a URI with ://")
    try:
        return urlsafe_b64decode(canonical + padding).decode()
    except UnicodeDecodeError:
        raise ValueError("fileuri is base64 of bytes that are not UTF-8") from None
