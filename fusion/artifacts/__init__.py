"""A run's folder: what it is, where it stands, its weights."""
