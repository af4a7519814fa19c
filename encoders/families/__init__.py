"""Encoders that come from libraries: one module per family, each as `encoders/contract.py` says."""
