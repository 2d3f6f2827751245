"""Causal language models: one token after another, a structure behind its protein."""
