"""How a cloud is reached, whatever it speaks."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from labelport.stores._retrying import RetryPolicy


@dataclass(frozen=True)
class Transport:
    """How to reach a cloud: connections, timeouts, TLS, retries."""

    connections: int = 64  #: at once, and kept for reuse
    connect_seconds: float = 10.0
    head_seconds: float = 30.0  #: until an answer must have begun; only where *lean*
    read_seconds: float = 30.0  #: without a byte, until a connection counts as broken
    tls: ssl.SSLContext | bool = True  #: False: certificates are not checked
    proxy: str | None = field(default=None, repr=False)  #: URL of an HTTP proxy
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    lean: bool = False  #: read objects with our own HTTP client, unless there is a proxy
    chunk_bytes: int = 64 << 10  #: read at a time, where *lean*, and of files
    receive_bytes: int = 128 << 10  #: the socket's own buffer, where *lean*; 0: the system's


DEFAULT_TRANSPORT = Transport()
