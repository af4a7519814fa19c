"""Pretrained weights: which there are, where they are kept, how they are read and fetched."""
