"""``python -m benchmarks``: all of them, one after the other."""

import subprocess
import sys
from pathlib import Path

for name in ("importing", "exporting", "formats", "proxy"):
    print(f"== {name}", flush=True)
    file = Path(__file__).parent / f"{name}.py"
    subprocess.run([sys.executable, file], check=True)
