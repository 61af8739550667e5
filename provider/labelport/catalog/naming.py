"""Names that people give, and how they are told from ids."""

from __future__ import annotations

from labelport.errors import ConfigurationError

MAX_NAME_LENGTH = 200  # characters
_MAX_ID = 2**63 - 1


def is_id(name_or_id: str | int) -> bool:
    """Whether this is an id: a number, or text of ASCII digits as a command line gives it."""
    if isinstance(name_or_id, int):
        return True
    return name_or_id.isascii() and name_or_id.isdecimal() and int(name_or_id) <= _MAX_ID


def check_name(what: str, name: str) -> None:
    """Raise `ConfigurationError` unless *name* can stand for a *what* everywhere.

    Digits only would be taken for an id; control characters would break tables and logs.
    """
    if not name.strip() or name != name.strip():
        raise ConfigurationError(
            f"the {what} {name!r} must not be empty or begin or end with a space"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise ConfigurationError(f"the {what} is longer than {MAX_NAME_LENGTH} characters")
    if not name.isprintable():
        raise ConfigurationError(f"the {what} {name!r} must not have control characters")
    if name.isdecimal():
        raise ConfigurationError(
            f"the {what} {name!r} would be taken for an id; add a letter to it"
        )
