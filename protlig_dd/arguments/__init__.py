"""The options of the command line, one file for each group of commands. Nothing here imports torch or a model."""
