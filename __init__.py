"""avfuse: frame-synchronised audio-visual features and a fusion trainer for valence and arousal."""

__version__ = "0.1.0"
