"""Encoders that other libraries make: one module a family, which loads its library when it is asked for rows."""
