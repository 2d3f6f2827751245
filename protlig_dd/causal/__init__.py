"""Causal language models that generate structure tokens after the protein sequence."""
