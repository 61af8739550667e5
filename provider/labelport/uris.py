"""URIs inside task data: as a whole string, or somewhere in HTML, Markdown and other text.

A string that begins with a known scheme is one URI to its end, for a key may hold any character.
Text that merely contains URIs is markup, in which entities stand for characters: a URI there ends
with its quoted attribute, or where a bare one cannot go on. Web addresses are never touched,
whatever their queries hold. All of it takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html import escape, unescape
from html.entities import html5
from typing import Any, NamedTuple

from labelport.uri import SCHEMES

#: What no URI holds, so that it can always be sent and asked for.
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_LINE_ENDS = "\t\n\v\f\r"
_PUNCTUATION = ".,:!?"  # after a bare URI it belongs to the sentence, as in Markdown's autolinks
_SCHEME = rf"(?a:{'|'.join(SCHEMES)})://"
_WHOLE = re.compile(rf"\s*+(?={_SCHEME})", re.IGNORECASE)
#: A URI or web address, and the quote before it if an attribute's value begins there. A srcset
#: holds several, so that those in it count as bare.
_START = re.compile(
    rf"""(?:(?<!srcset)=\s*+(["'])\s*+)?(?<![a-z0-9+.-])(?:({_SCHEME})|https?://)""", re.IGNORECASE
)
_STOP = re.compile(
    r"""[\s\x00-\x1f\x7f"'`<>()]|&(?:quot|apos|lt|gt|#3[49]|#x2[27]);""", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:(#\d{1,7}|#[xX][0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));")


def uris_in(value: object) -> Iterator[str]:
    """Every URI in parsed JSON, in the order they are written, as often as they are.

    Names of a dictionary's values are no data and are not searched.
    """
    stack = [iter((value,))]
    while stack:
        for item in stack[-1]:
            if isinstance(item, str):
                yield from (found.uri for found in _found(item))
            elif isinstance(item, (list, dict)):
                stack.append(iter(item.values() if isinstance(item, dict) else item))
                break
        else:
            stack.pop()


def replace_uris(value: object, replace: Callable[[str], str | None]) -> object:
    """A copy of parsed JSON with other text for its URIs; where *replace* gives None, the same."""
    top: list[Any] = [value]
    unvisited: list[list[Any] | dict[Any, Any]] = [top]
    while unvisited:
        container = unvisited.pop()
        for place, item in _places(container):
            if isinstance(item, str):
                container[place] = _replaced(item, replace)
            elif isinstance(item, (list, dict)):
                container[place] = item.copy()
                unvisited.append(container[place])
    return top[0]


def _places(container: list[Any] | dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


class _Found(NamedTuple):
    """A URI, written in ``start <= character < stop`` of a text."""

    start: int
    stop: int
    uri: str
    escaped: bool  #: the text around it is markup


def _replaced(text: str, replace: Callable[[str], str | None]) -> str:
    pieces: list[str] = []
    done = 0
    for start, stop, uri, escaped in _found(text):
        new = replace(uri)
        if new is not None:
            pieces += (text[done:start], escape(new) if escaped else new)
            done = stop
    return "".join((*pieces, text[done:]))


def _found(text: str) -> Iterator[_Found]:
    if "://" not in text:
        return
    if (whole := _WHOLE.match(text)) and (stop := _full_stop(text, whole.end(), len(text))):
        found = [_Found(whole.end(), stop, text[whole.end() : stop], False)]
    else:
        found = list(_in_markup(text))
    yield from (each for each in found if _names_object(each.uri))


def _in_markup(text: str) -> Iterator[_Found]:
    position = 0
    while start := _START.search(text, position):
        begin = start.end() if start[2] is None else start.start(2)
        position = max(_stop(text, begin, start[1]), start.end())
        if start[2]:
            uri = _ENTITY.sub(_character, text[begin:position])
            yield _Found(begin, position, uri, True)


def _stop(text: str, start: int, quote: str | None) -> int:
    end = text.find(quote, start) if quote else -1
    return (_full_stop(text, start, end) if end != -1 else None) or _bare_stop(text, start)


def _full_stop(text: str, start: int, end: int) -> int | None:
    """Where a URI stops that may fill the text up to *end*; None: it cannot."""
    stop = start + len(text[start:end].rstrip(_LINE_ENDS))
    return None if UNSPEAKABLE.search(text, start, stop) else stop


def _bare_stop(text: str, start: int) -> int:
    depth = 0
    end = len(text)
    for stop in _STOP.finditer(text, start):
        if stop[0] == "(":
            depth += 1
        elif stop[0] == ")" and depth:
            depth -= 1
        else:
            end = stop.start()
            break
    return start + len(text[start:end].rstrip(_PUNCTUATION))


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; one that is unknown, or unfinished, is plain text."""
    number, name = entity.groups()
    return unescape(entity[0]) if number else html5.get(f"{name};", entity[0])


def _names_object(uri: str) -> bool:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bool(bucket and key) and not UNSPEAKABLE.search(uri)
