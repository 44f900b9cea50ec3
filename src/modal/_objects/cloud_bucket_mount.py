"""`modal.CloudBucketMount`. A description; mounting it comes with storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .secret import Secret


@dataclass
class CloudBucketMount:
    """A bucket of an S3-compatible store, as a value of `volumes={...}`."""

    bucket_name: str
    bucket_endpoint_url: Optional[str] = None
    key_prefix: Optional[str] = None
    secret: Optional[Secret] = None
    oidc_auth_role_arn: Optional[str] = None
    read_only: bool = False
    requester_pays: bool = False
