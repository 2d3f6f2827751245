"""Structures: PDB and mmCIF files, superposition, TM-score, lDDT, 3Di letters and scaffolds."""
