"""The family table: the one place that knows every family of models.

`models` holds the union of settings, `tokens` what training, sampling and evaluation ask of a family of token models, `tokenizers` the
autoencoders of structure tokens, and `table` what the commands ask of every family.
"""
