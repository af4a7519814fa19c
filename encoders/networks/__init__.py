"""The networks. They import torch and nothing of ours, and open no files."""
