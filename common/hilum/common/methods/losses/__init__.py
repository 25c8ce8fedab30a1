"""Losses: one a file, each a few lines over tensors."""
