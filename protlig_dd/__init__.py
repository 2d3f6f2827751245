"""Discrete-diffusion transformers on proteins, ligands and structure tokens."""

__version__ = "0.1.0"
