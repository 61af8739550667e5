"""Reading an object whole, the same for every store."""

from __future__ import annotations

from labelport.errors import FormatError
from labelport.model import ObjectMeta
from labelport.stores import ObjectStream


async def read_whole(stream: ObjectStream, max_bytes: int) -> tuple[bytes, ObjectMeta]:
    """All bytes of an opened object. Raises `FormatError` above *max_bytes*, and reads none."""
    size = stream.meta.size
    if size > max_bytes:
        raise FormatError(
            f"The object has {size} bytes, more than the {max_bytes} allowed",
            "Split it into several objects, or raise the limit.",
        )
    return b"".join([chunk async for chunk in stream]), stream.meta
