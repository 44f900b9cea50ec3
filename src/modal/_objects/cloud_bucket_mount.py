"""`modal.CloudBucketMount`: a bucket of an S3-compatible service as a directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..exception import InvalidError
from .secret import Secret


@dataclass
class CloudBucketMount:
    """A bucket of an S3-compatible service (Amazon S3, Cloudflare R2, Google Cloud Storage, your own), as a directory.

    Use it as a value of `volumes`:

    @app.function(volumes={"/data": modal.CloudBucketMount("my-bucket", secret=secret, read_only=True)})
    def f():
        ...

    Args:
        bucket_name: the bucket.
        bucket_endpoint_url: URL of the service, without the bucket; default: Amazon's. Containers must reach it.
        key_prefix: show only objects whose keys begin with this, without it; it ends with a slash.
        secret: has the keys, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and maybe `AWS_SESSION_TOKEN` and
            `AWS_REGION`), or `GOOGLE_ACCESS_KEY_ID` and `GOOGLE_ACCESS_KEY_SECRET`. Default: the bucket is public.
        oidc_auth_role_arn: accepted together with `secret`, whose keys are used then. Alone it is refused, since Amazon
            cannot check the identity of a server of your own.
        read_only: refuse to write.
        requester_pays: agree to pay for requests to a bucket that asks for that.

    Raises:
        InvalidError: an argument is of the wrong kind. When a container starts: the keys are wrong.
        NotFoundError: when a container starts: there is no such bucket.
    """

    bucket_name: str
    bucket_endpoint_url: Optional[str] = None
    key_prefix: Optional[str] = None
    secret: Optional[Secret] = None
    oidc_auth_role_arn: Optional[str] = None
    read_only: bool = False
    requester_pays: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.bucket_name, str) or not self.bucket_name:
            raise InvalidError(f"CloudBucketMount takes the name of a bucket, not {self.bucket_name!r}.")
        for name in ("bucket_endpoint_url", "key_prefix", "oidc_auth_role_arn"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidError(f"CloudBucketMount: {name} must be a string, not {value!r}.")
            if value == "" and name != "key_prefix":
                raise InvalidError(
                    f"CloudBucketMount: {name} is empty; leave it out, or check where its value comes from."
                )
        for name in ("read_only", "requester_pays"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidError(f"CloudBucketMount: {name} must be True or False, not {getattr(self, name)!r}.")
        if self.key_prefix and not self.key_prefix.endswith("/"):
            raise InvalidError(
                f"CloudBucketMount: key_prefix must end with a slash, as in {self.key_prefix + '/'!r}: it stands "
                "before the path of every file."
            )
        if self.secret is not None and not isinstance(self.secret, Secret):
            raise InvalidError(f"CloudBucketMount: secret must be a modal.Secret, not {self.secret!r}.")
        if self.oidc_auth_role_arn and self.secret is None:
            raise InvalidError(
                "CloudBucketMount: oidc_auth_role_arn needs a server whose identity Amazon can check, which one of "
                "your own is not; pass a secret with keys instead."
            )
