"""An object that is the task itself: its URI becomes the data."""

from __future__ import annotations

from json.encoder import encode_basestring as quote

from labelport.errors import FormatError
from labelport.model import UNDEFINED_NAME, TaskRow


def media_row(uri: str, name: str = UNDEFINED_NAME) -> TaskRow:
    """The task ``{name: uri}``; FormatError when the URI is no text a database can hold."""
    if "\0" in uri or not (uri.isascii() or _encodable(uri)):
        raise FormatError("the key holds bytes that are no text", "Rename the object")
    return TaskRow(-1, f"{{{quote(name)}: {quote(uri)}}}")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: a file name that is no UTF-8
        return False
    return True
