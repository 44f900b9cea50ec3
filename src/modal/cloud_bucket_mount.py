"""Buckets as directories."""

from __future__ import annotations

from ._objects.cloud_bucket_mount import CloudBucketMount

__all__ = ["CloudBucketMount"]
