"""``python -m labelport.cli`` is ``labelport``."""

import sys

from labelport.cli import main

if __name__ == "__main__":
    sys.exit(main())
