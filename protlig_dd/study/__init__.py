"""A scaling study of our own experiments: sizes counted and timed, configs written, run folders read, the page. `scaling/` does the sums."""
