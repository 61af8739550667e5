"""The proxy's settings: read from the environment, refused by name, documented in one table."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from labelport.errors import ConfigurationError
from labelport_proxy import settings
from labelport_proxy.settings import Settings, variable_of

SECRET = "a-secret-for-tests-of-forty-characters-x"
DOCUMENT = Path(__file__).parents[1] / "docs/proxy.md"


def read(**environ: str) -> Settings:
    return Settings.from_environment({"LABELPORT_PROXY_SECRET": SECRET, **environ})


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("RESOLVER_PROXY_BUFFER_SIZE", "4096", "buffer_size", 4096),
        ("RESOLVER_PROXY_BUFFER_SIZE", "32 * 1024", "buffer_size", 32 << 10),
        ("LABELPORT_PROXY_LOG_LEVEL", "INFO", "log_level", "INFO"),
        ("RESOLVER_PROXY_TIMEOUT", "2.5", "timeout", 2.5),
        ("RESOLVER_PROXY_TIMEOUT", "20", "timeout", 20.0),
        ("RESOLVER_PROXY_MAX_RANGE_SIZE", " 1048576 ", "max_range_size", 1 << 20),
        ("RESOLVER_PROXY_CACHE_TIMEOUT", "0", "cache_timeout", 0),
        ("LABELPORT_PROXY_COOKIE_SECURE", "false", "cookie_secure", False),
        ("LABELPORT_PROXY_COOKIE_SECURE", "1", "cookie_secure", True),
        ("LABELPORT_PROXY_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104 # a value to read
        ("LABELPORT_PROXY_HOST", "", "host", "127.0.0.1"),
        (
            "LABELPORT_PROXY_ALLOWED_ORIGINS",
            "https://a.example.org/, http://localhost:8080,",
            "allowed_origins",
            ("https://a.example.org", "http://localhost:8080"),
        ),
    ],
)
def test_a_variable_sets_a_setting(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(read(**{variable: text}), name) == value


def test_the_references_settings_have_its_defaults() -> None:
    found = read()

    assert (found.buffer_size, found.timeout) == (64 * 1024, 10)
    assert (found.max_range_size, found.cache_timeout) == (7 * 1024 * 1024, 3600)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LABELPORT_PROXY_SECRET", ""),
        ("LABELPORT_PROXY_SECRET", "x" * 31),
        ("LABELPORT_PROXY_PORT", "eighty"),
        ("LABELPORT_PROXY_PORT", "65536"),
        ("LABELPORT_PROXY_WORKERS", "0"),
        ("LABELPORT_PROXY_COOKIE_SECURE", "perhaps"),
        ("RESOLVER_PROXY_BUFFER_SIZE", "64k"),
        ("RESOLVER_PROXY_BUFFER_SIZE", "0"),
        ("RESOLVER_PROXY_TIMEOUT", "0"),
        ("RESOLVER_PROXY_TIMEOUT", "-1"),
        ("RESOLVER_PROXY_TIMEOUT", "nan"),
        ("RESOLVER_PROXY_TIMEOUT", "inf"),
        ("RESOLVER_PROXY_MAX_RANGE_SIZE", "0"),
        ("RESOLVER_PROXY_CACHE_TIMEOUT", "-1"),
        ("LABELPORT_PROXY_UPSTREAM_TIMEOUT", "0"),
        ("LABELPORT_PROXY_MIN_RATE", "-1"),
        ("LABELPORT_PROXY_ACCESS_SECONDS", "-1"),
        ("LABELPORT_PROXY_SESSION_SECONDS", "0"),
        ("LABELPORT_PROXY_REQUESTS_PER_SECOND", "-1"),
        ("LABELPORT_PROXY_STREAMS_PER_USER", "-1"),
        ("LABELPORT_PROXY_SOCKET_BUFFER", "-1"),
        ("LABELPORT_PROXY_LOG_LEVEL", "loud"),
        ("LABELPORT_PROXY_ALLOWED_ORIGINS", "*"),
        ("LABELPORT_PROXY_ALLOWED_ORIGINS", "example.org"),
        ("LABELPORT_PROXY_ALLOWED_ORIGINS", "https://a.example.org/path"),
        ("LABELPORT_PROXY_OIDC_ISSUER", "https://id.example.org"),
        ("LABELPORT_PROXY_OIDC_AUDIENCE", "labelport"),
    ],
)
def test_what_cannot_work_is_refused_by_the_variables_name(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        read(**{variable: text})


def test_settings_and_what_refuses_them_show_no_secret() -> None:
    secrets = {
        "LABELPORT_PROXY_SECRET": "s" * 31,
        "LABELPORT_CATALOG_URL": "postgresql://user:pw-of-the-catalog@host/db",
        "LABELPORT_PROXY_METRICS_TOKEN": "token-of-the-metrics",
    }
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment(secrets)
    shown = f"{refused.value} {read(**secrets | {'LABELPORT_PROXY_SECRET': SECRET})!r}"

    assert not [secret for secret in (*secrets.values(), SECRET) if secret in shown]


def test_every_setting_has_a_variable_of_its_own_and_a_row() -> None:
    names = [each.name for each in fields(Settings)]
    variables = [variable_of(name) for name in names]
    rows = settings.table().splitlines()[2:]

    assert len(set(variables)) == len(names)
    assert [row.split("`")[1] for row in rows] == variables
    assert all(row.count(" | ") == 2 and not row.endswith("|  |") for row in rows)


def test_the_documentations_table_is_made_of_the_settings() -> None:
    found = re.search(
        r"<!-- settings -->\n+(.*?)\n+<!-- /settings -->", DOCUMENT.read_text("utf-8"), re.DOTALL
    )

    assert found and found[1] == settings.table()
