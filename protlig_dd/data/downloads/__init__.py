"""Public data sets: fetched from their publishers, checked, converted."""
