"""Trained runs on trials they have not learned from."""
