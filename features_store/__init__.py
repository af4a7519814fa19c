"""The feature store: one zarr group a trial, one row a video frame. NumPy and zarr only."""
