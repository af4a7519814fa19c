"""Frames to aligned crops of one person."""
