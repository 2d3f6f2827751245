"""Coordinates: structure files, superposition and the scores that compare structures."""
