"""The fusion head that learns valence and arousal from a feature store."""
