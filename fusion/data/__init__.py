"""A store and its labels as batches of windows."""
