"""``python -m pyvirt`` is ``pyvirt``."""

import sys

from pyvirt.cli import main

if __name__ == "__main__":
    sys.exit(main())
