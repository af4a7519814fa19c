"""Backbones tuned together with a head, or on pictures, and the weight files that come out."""
