"""The HTML report of a run: tables, drawings, traces and the viewer."""
