"""The storage proxy: safe media for those who label."""

__version__ = "0.1.0"
