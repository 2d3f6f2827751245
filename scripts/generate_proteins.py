#!/usr/bin/env python
"""Generate proteins for ligands from a trained run: `protlig sample RUN --ligand ... --generate protein`.

python scripts/generate_proteins.py runs/dual_track_demo --ligand "CC(=O)NO" --num 100 --out proteins.fasta
"""

from __future__ import annotations

import sys

from protlig_dd.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:], "--generate", "protein"]))
