"""Encoders, and models with a head on one, as files that other tools open: `hilum.client.export.formats.export`.

A format is one file here, over a network and its description (`exportable`), with its line in `formats.FORMATS`.
"""
