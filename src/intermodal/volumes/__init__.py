"""Volumes: trees of files in versions, each version a stack of overlay layers."""
