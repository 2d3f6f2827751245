"""Readers of tables, sequences, molecules, complexes and folders: each yields records."""
