"""Foldseek databases: read, written, checked, and used as training data."""
