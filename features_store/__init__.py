"""The feature store: one zarr group per trial, one row per video frame. NumPy and zarr only."""
