"""Intermodal: the platform that runs the `modal` Python API on machines people own."""

__version__ = "0.1.0"
