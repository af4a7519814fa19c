"""Encoders that come from libraries: one module a family, each as `encoders/contract.py` says."""
