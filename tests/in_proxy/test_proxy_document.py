"""docs/proxy.md names all that programs and operators may meet."""

import re
from pathlib import Path

import pytest

from labelport_proxy import metrics, observing
from labelport_proxy.refusing import MEANINGS
from labelport_proxy.streaming import Cut

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT.joinpath("docs/proxy.md").read_text("utf-8")
SOURCES = [path.read_text("utf-8") for path in ROOT.glob("proxy_service/labelport_proxy/*.py")]


def raised() -> set[tuple[int, str]]:
    """Status and word of every refusal that the source writes out."""
    written = re.compile(r'Refusal\(\s*(\d{3}),\s*"(\w+)"')
    return {(int(status), word) for text in SOURCES for status, word in written.findall(text)}


def test_every_refusal_has_a_row_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    known = {(meaning.status, meaning.error) for meaning in MEANINGS.values()}
    known |= raised() | {(405, observing._WORDS[405])}

    assert {(int(status), word) for status, word in rows} == known
    assert len(rows) == len(known)


def test_every_reason_of_a_cut_has_a_row() -> None:
    assert re.findall(r"^\| `(\w+)` \| \D", DOCUMENT, re.MULTILINE)[: len(Cut)] == list(Cut)


@pytest.mark.parametrize("metric", [*metrics._REGISTRY.collect()], ids=lambda metric: metric.name)
def test_every_metric_has_a_row(metric) -> None:
    assert re.search(rf"^\| `{metric.name}(_total)?(\{{\w+\}})?` \|", DOCUMENT, re.MULTILINE)
