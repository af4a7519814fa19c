"""Pretrained weights: which there are, where they lie, reading them, getting them."""
