"""Samples to log-mel patches and MFCC at frame times."""
