"""Overlay file systems: mounting them, and looking into their layers without mounting."""
