"""Generated chest radiographs."""
