"""Object URIs: ``scheme://bucket/key``, with the key taken literally."""

from __future__ import annotations

from typing import NamedTuple

from labelport.errors import ConfigurationError

#: Of the URIs that task data may hold; any other text is no name of an object.
SCHEMES = ("s3", "gs", "azure-blob", "file", "memory", "redis")


class ObjectUri(NamedTuple):
    """The name of one object across stores.

    The key is opaque: nothing is decoded, so ``?``, ``#``, ``%`` and ``+`` are characters of it.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> ObjectUri:
        """Split *text* at the first ``://`` and the first ``/`` after it.

        Raises:
            ConfigurationError: there is no scheme or no bucket.
        """
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not separator or not scheme or not bucket:
            raise ConfigurationError(f"{text!r} is not a location: write scheme://bucket/prefix")
        return cls(scheme.lower(), bucket, key)
