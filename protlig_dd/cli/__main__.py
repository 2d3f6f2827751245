"""`python -m protlig_dd.cli` is `protlig`."""

from __future__ import annotations

import sys

from protlig_dd.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
