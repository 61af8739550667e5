"""Values that may have gone through a Jinja template, which makes text of everything."""

from __future__ import annotations

from labelport.errors import ConfigurationError

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


def flag(value: bool | str) -> bool:
    """A boolean; empty text is false.

    Raises:
        ConfigurationError: the text is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    try:
        return _FLAGS[value.strip().lower()]
    except KeyError:
        raise ConfigurationError(f"{value!r} is neither true nor false") from None


def number(value: int | str | None) -> int | None:
    """A whole number; empty text and ``None`` mean no number.

    Raises:
        ConfigurationError: the text is no number.
    """
    if value is None or isinstance(value, int):
        return value
    text = value.strip()
    if text.lower() in ("", "none"):
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{value!r} is not a whole number") from None
