"""Vocabularies, tracks, and packed batches of them."""
