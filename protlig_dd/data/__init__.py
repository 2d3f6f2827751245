"""Data: readers, token tables, splits, the loader, downloads, and the synthetic world of the demo."""
