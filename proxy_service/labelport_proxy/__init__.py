"""The storage proxy: safe media for those who label. Its endpoints come with a later release."""

__version__ = "0.1.0"
