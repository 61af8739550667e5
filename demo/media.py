"""Pictures and sounds that Python packages bring along, and their licences."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Medium(NamedTuple):
    """A file to label."""

    key: str  #: below the bucket
    path: Path
    licence: str


#: Of scikit-image's pictures, those whose documentation names a licence.
_PICTURES = {
    "astronaut.png": "public domain (NASA)",
    "brick.png": "CC0",
    "camera.png": "CC0",
    "cell.png": "CC0",
    "chelsea.png": "CC0",
    "clock_motion.png": "public domain",
    "coffee.png": "CC0",
    "coins.png": "no known copyright restrictions (Brooklyn Museum)",
    "grass.png": "CC0",
    "gravel.png": "CC0",
    "horse.png": "CC0",
    "hubble_deep_field.jpg": "public domain (NASA)",
    "ihc.png": "no known copyright restrictions (CMMI)",
    "microaneurysms.png": "CC0",
    "retina.jpg": "CC0",
    "rocket.jpg": "public domain (SpaceX)",
    "text.png": "public domain",
}

#: The sounds of pygame-ce's examples.
_SOUNDS = (
    *("boom.wav", "car_door.wav", "punch.wav", "secosmic_lo.wav", "whiff.wav"),
    *("house_lo.flac", "house_lo.mp3", "house_lo.ogg", "house_lo.wav"),
)
_SOUND_LICENCE = "LGPL-2.1, as pygame-ce's examples"

#: What the packages bring and under which terms.
SOURCES = (
    "pictures that scikit-image brings (CC0, public domain)",
    "sounds that pygame-ce's examples bring (LGPL-2.1)",
)


def pictures() -> Iterator[Medium]:
    """The pictures, in order of key."""
    folder = _package("skimage") / "data"
    for name, licence in _PICTURES.items():
        yield Medium(f"media/pictures/{name}", folder / name, licence)


def sounds() -> Iterator[Medium]:
    """The sounds, in order of key."""
    folder = _package("pygame") / "examples" / "data"
    for name in sorted(_SOUNDS):
        yield Medium(f"media/sounds/{name}", folder / name, _SOUND_LICENCE)


def _package(name: str) -> Path:
    """Where a package lies. It is not imported."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{name} is missing: pip install 'airflow-provider-labelport[demo]'")
    return Path(spec.submodule_search_locations[0])
