"""Parameters of operators after Jinja has made text of them."""

import pytest

from labelport.airflow.templated import flag, number
from labelport.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (True, True),
        ("True", True),
        ("yes", True),
        ("false", False),
        (" False ", False),
        ("", False),
    ],
)
def test_a_flag(value, meaning):
    assert flag(value) is meaning


@pytest.mark.parametrize(
    ("value", "meaning"), [(3, 3), ("3", 3), (" 12 ", 12), (None, None), ("None", None), ("", None)]
)
def test_a_number(value, meaning):
    assert number(value) == meaning


@pytest.mark.parametrize("read", [flag, number])
def test_what_is_neither_is_refused(read):
    with pytest.raises(ConfigurationError, match="'perhaps'"):
        read("perhaps")
