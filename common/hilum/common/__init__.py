"""The vocabulary that both sides of a federation share: config, weights, encoders, methods, records."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hilum")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
