"""Bring the catalogue in line with an archive: look, read, plan, decode, settle."""
