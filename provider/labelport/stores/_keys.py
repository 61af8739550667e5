"""Keys on their way into a URL: quoted byte by byte, or refused where HTTP would bend them."""

from __future__ import annotations

import re
from urllib.parse import quote

from labelport.errors import InvalidKey

#: Segments that every HTTP client resolves away, and characters that some drop or refuse. A few
#: servers, SeaweedFS among them, take backslashes for slashes.
_BENT = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)|[\x00-\x1f\x7f]")


def quoted_key(key: str, uri: str) -> str:
    """*key* as the path of a URL: UTF-8, percent-encoded, with its slashes kept.

    Raises:
        InvalidKey: the key is empty, has a ``.`` or ``..`` segment or a control character, or is
            not UTF-8 (surrogates). Such keys can be listed, and nothing else.
    """
    if not key:
        raise InvalidKey("an object needs a key", uri=uri)
    if _BENT.search(key):
        raise InvalidKey(
            "HTTP clients change keys with '.' or '..' segments or control characters: "
            "copy the object to a plainer key",
            uri=uri,
        )
    try:
        return quote(key, safe="/")
    except UnicodeEncodeError:
        raise InvalidKey("the key is not UTF-8", uri=uri) from None
