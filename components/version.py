"""The version of histoline."""

__version__ = "0.1.0"
