"""Decode in processes with bounded memory and time, which can do no harm."""
