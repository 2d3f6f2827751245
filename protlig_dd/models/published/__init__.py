"""Layouts of published checkpoints: ESM-2, DPLM, DPLM-2 and SEDD, read and written."""
