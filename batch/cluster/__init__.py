"""Jobs on the workers of a dask cluster."""
