#!/usr/bin/env python
"""Generate ligands for proteins from a trained run: `protlig sample RUN --protein ... --generate ligand`.

python scripts/generate_ligands.py runs/dual_track_demo --protein proteins.fasta --num 100 --out ligands.csv
"""

from __future__ import annotations

import sys

from protlig_dd.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:], "--generate", "ligand"]))
