"""Every setting of the proxy, from the environment. The documentation's table is made of this."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_type_hints

import msgspec
from starlette.datastructures import Secret

from labelport.errors import ConfigurationError
from labelport.links import MIN_SECRET_LENGTH

_MAX_PORT = 65535
#: How sizes are often written: 64*1024.
_PRODUCT = re.compile(r"[0-9]{1,9}(?: *\* *[0-9]{1,9})+", re.ASCII)
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_POSITIVE = (
    *("buffer_size", "timeout", "max_range_size", "head_timeout", "workers", "session_seconds"),
)
_NOT_NEGATIVE = (
    *("cache_timeout", "min_rate", "access_seconds", "requests_per_second", "streams_per_user"),
    *("oidc_leeway", "socket_buffer", "shutdown_seconds", "keep_alive_seconds"),
)


def _setting(variable: str, default: object, meaning: str, shown: str | None = None) -> Any:
    """A field that *variable* sets; *shown* is the default as people read it."""
    metadata = {"variable": variable, "meaning": meaning, "shown": shown}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """How the proxy serves. Sizes are bytes, times seconds."""

    secret: Secret = _setting(
        "LABELPORT_PROXY_SECRET",
        Secret(""),
        f"signs links and ETags: at least {MIN_SECRET_LENGTH} random characters, the same in all "
        "processes. The proxy does not start without",
        "required",
    )
    catalog_url: Secret = _setting(
        "LABELPORT_CATALOG_URL",
        Secret(""),
        "where the catalog is; without it the Airflow connection `labelport_default` says",
        "",
    )
    host: str = _setting("LABELPORT_PROXY_HOST", "127.0.0.1", "address to listen on")
    port: int = _setting("LABELPORT_PROXY_PORT", 8090, "port to listen on")
    workers: int = _setting("LABELPORT_PROXY_WORKERS", 1, "processes")
    buffer_size: int = _setting(
        "RESOLVER_PROXY_BUFFER_SIZE", 64 * 1024, "size of the chunks that are streamed", "64*1024"
    )
    timeout: float = _setting(
        "RESOLVER_PROXY_TIMEOUT",
        10.0,
        "how long a ranged answer may take, and how long any answer may stand still",
        "10",
    )
    max_range_size: int = _setting(
        "RESOLVER_PROXY_MAX_RANGE_SIZE",
        7 * 1024 * 1024,
        "the most that one ranged answer holds; browsers ask for the rest",
        "7*1024*1024",
    )
    cache_timeout: int = _setting(
        "RESOLVER_PROXY_CACHE_TIMEOUT", 3600, "how long a browser may keep what was streamed"
    )
    min_rate: int = _setting(
        "LABELPORT_PROXY_MIN_RATE",
        16 * 1024,
        "bytes a second, on average, below which a whole answer is ended after three timeouts",
        "16*1024",
    )
    head_timeout: float = _setting(
        "LABELPORT_PROXY_UPSTREAM_TIMEOUT",
        10.0,
        "how long a store may take to begin its answer",
        "10",
    )
    access_seconds: float = _setting(
        "LABELPORT_PROXY_ACCESS_SECONDS",
        5.0,
        "how long a decision on access is used again; what is revoked works for so long",
        "5",
    )
    session_seconds: int = _setting(
        "LABELPORT_PROXY_SESSION_SECONDS", 12 * 3600, "how long a cookie session lives", "12*3600"
    )
    cookie_secure: bool = _setting(
        "LABELPORT_PROXY_COOKIE_SECURE", True, "whether browsers send the cookie over HTTPS only"
    )
    allowed_origins: tuple[str, ...] = _setting(
        "LABELPORT_PROXY_ALLOWED_ORIGINS",
        (),
        "origins whose scripts may read media with the user's cookie, separated by commas",
        "",
    )
    requests_per_second: float = _setting(
        "LABELPORT_PROXY_REQUESTS_PER_SECOND",
        100.0,
        "requests of one user, in each process; four seconds' worth may come at once. 0: no limit",
        "100",
    )
    streams_per_user: int = _setting(
        "LABELPORT_PROXY_STREAMS_PER_USER",
        64,
        "streams that one user may have open at once, in each process. 0: no limit",
    )
    oidc_issuer: str = _setting(
        "LABELPORT_PROXY_OIDC_ISSUER", "", "whose JWTs are accepted as Bearer tokens; empty: none"
    )
    oidc_audience: str = _setting(
        "LABELPORT_PROXY_OIDC_AUDIENCE", "", "the audience those must name; required with an issuer"
    )
    oidc_jwks_url: str = _setting(
        "LABELPORT_PROXY_OIDC_JWKS_URL", "", "the issuer's keys; empty: by its discovery document"
    )
    oidc_email_claim: str = _setting(
        "LABELPORT_PROXY_OIDC_EMAIL_CLAIM", "email", "the claim that names the user"
    )
    oidc_leeway: float = _setting(
        "LABELPORT_PROXY_OIDC_LEEWAY", 60.0, "how far the issuer's clock may be from ours", "60"
    )
    metrics_token: Secret = _setting(
        "LABELPORT_PROXY_METRICS_TOKEN",
        Secret(""),
        "the Bearer token that `/metrics` asks for; empty: nobody is asked",
        "",
    )
    log_level: str = _setting(
        "LABELPORT_PROXY_LOG_LEVEL", "info", "`debug`, `info` (a line a request), `warning`, …"
    )
    shutdown_seconds: int = _setting(
        "LABELPORT_PROXY_SHUTDOWN_SECONDS", 30, "how long open streams may go on after SIGTERM"
    )
    keep_alive_seconds: int = _setting(
        "LABELPORT_PROXY_KEEP_ALIVE_SECONDS", 75, "how long an idle connection is kept"
    )
    forwarded_allow_ips: str = _setting(
        "LABELPORT_PROXY_FORWARDED_ALLOW_IPS",
        "127.0.0.1",
        "the reverse proxies whose `X-Forwarded-For` and `-Proto` are believed",
    )
    socket_buffer: int = _setting(
        "LABELPORT_PROXY_SOCKET_BUFFER",
        96 * 1024,
        "what the kernel is asked to hold for a stream, to the client and from the store each; "
        "0: as it likes",
        "96*1024",
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings that *environ* makes.

        Raises:
            ConfigurationError: a value cannot be read, or the settings do not go together.
        """
        kinds = get_type_hints(cls)
        given: dict[str, Any] = {}
        for each in fields(cls):
            text = environ.get(each.metadata["variable"], "").strip()
            if text:
                given[each.name] = _read(each, kinds[each.name], text)
        settings = cls(**given)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise `ConfigurationError` where the proxy would be unsafe or could not work."""
        if len(str(self.secret)) < MIN_SECRET_LENGTH:
            raise ConfigurationError(
                f"LABELPORT_PROXY_SECRET must have at least {MIN_SECRET_LENGTH} random characters: "
                "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ConfigurationError(
                "LABELPORT_PROXY_OIDC_ISSUER and LABELPORT_PROXY_OIDC_AUDIENCE go together: "
                "without an audience, tokens made for other services would be accepted"
            )
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f"{variable_of(name)} must be more than 0")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{variable_of(name)} must not be less than 0")
        if not 0 <= self.port <= _MAX_PORT:
            raise ConfigurationError(f"LABELPORT_PROXY_PORT must be at most {_MAX_PORT}")
        if self.log_level.lower() not in _LOG_LEVELS:
            raise ConfigurationError(
                f"LABELPORT_PROXY_LOG_LEVEL={self.log_level!r}: use {', '.join(_LOG_LEVELS)}"
            )
        for origin in self.allowed_origins:
            if origin == "*" or "://" not in origin or origin.count("/") != 2:
                raise ConfigurationError(
                    f"LABELPORT_PROXY_ALLOWED_ORIGINS: {origin!r} is no origin; write "
                    "https://app.example.org, without a path"
                )


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    (found,) = (each for each in fields(Settings) if each.name == name)
    variable: str = found.metadata["variable"]
    return variable


def table() -> str:
    """All settings as a table in Markdown, for the documentation."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for each in fields(Settings):
        shown = each.metadata["shown"]
        default = str(each.default).lower() if shown is None else shown
        cell = default if default in ("", "required") else f"`{default}`"
        lines.append(f"| `{each.metadata['variable']}` | {cell} | {each.metadata['meaning']} |")
    return "\n".join(lines)


def _read(setting: Field[Any], kind: Any, text: str) -> object:
    if kind is Secret:
        return Secret(text)
    if kind == tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    if kind is int and _PRODUCT.fullmatch(text):
        return math.prod(map(int, text.split("*")))
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        raise ConfigurationError(
            f"{setting.metadata['variable']}={text!r} is no {kind.__name__}"
        ) from None
