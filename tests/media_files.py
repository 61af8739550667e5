"""Small pictures, sounds and films for tests, made by the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import imageio_ffmpeg

SECONDS = 24  #: how long sounds and films last

# Noise, for what compresses well would be smaller than one range.
_PICTURE = (
    *("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=15:duration={SECONDS}"),
    *("-vf", "noise=alls=12:allf=t,format=yuv420p"),
)
_SOUND = ("-f", "lavfi", "-i", f"anoisesrc=colour=pink:duration={SECONDS}:sample_rate=44100")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "36", "-g", "15", "-c:a", "aac")
_VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k", "-g", "15")
_STILL = ("-f", "lavfi", "-i", "color=red:size=32x24", "-frames:v", "1")

#: What ffmpeg is told for each file. Sounds and films have more than 256 KiB.
_RECIPES: Mapping[str, tuple[str, ...]] = {
    "film.mp4": (*_SOUND, *_PICTURE, *_H264),  # its index is at the end
    "fast.mp4": (*_SOUND, *_PICTURE, *_H264, "-movflags", "+faststart"),
    "film.webm": (*_SOUND, *_PICTURE, *_VP8, "-c:a", "libopus"),
    "sound.wav": _SOUND,
    "sound.ogg": (*_SOUND, "-c:a", "libvorbis", "-b:a", "160k"),
    "still.png": _STILL,
    "still.jpg": _STILL,
    "still.webp": _STILL,
}

SOUNDS_AND_FILMS = tuple(name for name in _RECIPES if not name.startswith("still"))
PICTURES = (*(name for name in _RECIPES if name.startswith("still")), "still.svg")

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="32" height="24">'
    '<rect width="32" height="24" style="fill: red"/></svg>'
)


def make(name: str, folder: Path) -> Path:
    """The file *name* in *folder*, made if it is not there."""
    path = folder / name
    if name == "still.svg":
        path.write_text(_SVG)
    elif not path.exists():
        program = imageio_ffmpeg.get_ffmpeg_exe()
        command = [program, "-loglevel", "error", "-nostdin", *_RECIPES[name], str(path)]
        subprocess.run(command, check=True)
    return path
