"""The fusion head that learns valence and arousal from a feature store (a door: nothing is behind it yet)."""
