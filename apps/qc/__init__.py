"""Trials held against thresholds: faces, gaps, silence, lengths, sound against picture."""
