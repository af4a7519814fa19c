"""Which trials train and which validate."""
