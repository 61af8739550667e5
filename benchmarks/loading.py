"""A client that costs little: blocking sockets in threads, for measuring what serves them."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Ask:
    """A request as its bytes."""

    raw: bytes

    @classmethod
    def get(cls, target: str, **headers: str) -> Ask:
        fields = "".join(
            f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()
        )
        return cls(f"GET {target} HTTP/1.1\r\nHost: benchmark\r\n{fields}\r\n".encode())


@dataclass(frozen=True)
class Load:
    """What came of it."""

    requests: int
    bytes: int  #: of bodies
    seconds: float


def load(
    url: str, asks: Sequence[Ask], *, clients: int, seconds: float, status: bytes = b"200"
) -> Load:
    """Ask over *clients* kept connections for some seconds, each time one of *asks*."""
    place = urlsplit(url)
    ends = time.monotonic() + seconds
    done: list[tuple[int, int]] = []

    def work(seed: int) -> None:
        choose = random.Random(seed).choice
        requests = received = 0
        with Connection(place.hostname or "", place.port or 80) as connection:
            while time.monotonic() < ends:
                received += connection.ask(choose(asks), status)
                requests += 1
        done.append((requests, received))

    begun = time.monotonic()
    _in_threads(work, clients)
    assert len(done) == clients, "a client failed"
    return Load(
        sum(requests for requests, _ in done),
        sum(received for _, received in done),
        time.monotonic() - begun,
    )


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Connection:
    """One kept connection."""

    def __init__(self, host: str, port: int, receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(self, ask: Ask, status: bytes) -> int:
        """Send a request and read its whole answer; how many bytes the body has."""
        head, rest = self.head(ask)
        assert head.split(b" ", 2)[1] == status, head
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        left = length - rest
        while left:
            got = self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
            assert got, "the answer ended early"
            left -= got
        return length

    def head(self, ask: Ask) -> tuple[bytes, int]:
        """Send a request and read the head of its answer; the head, and what came after it."""
        self._socket.sendall(ask.raw)
        data = b""
        while b"\r\n\r\n" not in data:
            got = self._socket.recv(65536)
            assert got, "no answer"
            data += got
        head, _, rest = data.partition(b"\r\n\r\n")
        return head + b"\r\n", len(rest)

    def sip(self, count: int) -> int:
        """Read up to *count* bytes of a body."""
        return self._socket.recv_into(self._buffer, count)
