"""What is checked of buckets in a function's spec, and which keys their mounts get. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from intermodal.model.container import MountedBucket
from modal._wire.messages.function import BucketMount, FunctionSpec
from modal.exception import InvalidError

if TYPE_CHECKING:
    from intermodal.control.apps import App
    from intermodal.control.secret_service import SecretService

_MOST_BUCKETS = 20  # each is a process
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_PREFIX_BYTES = 1000
#: Services name their keys differently.
_KEY_NAMES = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"))
_REGION = re.compile(r"[a-z0-9-]{1,40}")


def bucket_rules(spec: FunctionSpec) -> Iterator[tuple[bool, str]]:
    """What must hold of the buckets of a function, and the sentence that says so."""
    yield len(spec.buckets) <= _MOST_BUCKETS, f"at most {_MOST_BUCKETS} buckets can be mounted"
    yield (
        not (spec.buckets and spec.block_network),
        "a bucket is reached through the container's network, so it cannot be mounted with block_network",
    )
    for one in spec.buckets:
        yield _NAME.fullmatch(one.bucket_name) is not None, f"{one.bucket_name[:100]!r} cannot be the name of a bucket"
        yield (
            not one.endpoint_url or _is_endpoint(one.endpoint_url),
            f"bucket_endpoint_url must be such as 'https://s3.example.com', not {one.endpoint_url[:200]!r}",
        )
        yield (
            not one.key_prefix or _is_prefix(one.key_prefix),
            f"key_prefix must be directories and end with a slash, such as 'a/b/', not {one.key_prefix[:200]!r}",
        )


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.removesuffix(f":{port}") if port is not None else parts.netloc
    rebuilt = f"{parts.scheme}://{parts.netloc}"
    return (
        parts.scheme in ("http", "https")
        and len(url) <= 300
        and _HOST.fullmatch(host) is not None
        and url in (rebuilt, f"{rebuilt}/")
    )


def _is_prefix(prefix: str) -> bool:
    names = prefix.removesuffix("/").split("/")
    return (
        prefix.endswith("/")
        and len(prefix.encode(errors="replace")) <= _PREFIX_BYTES
        and prefix.isprintable()
        and not any(name in ("", ".", "..") for name in names)
    )


def check_secrets_of(buckets: Iterable[BucketMount], secrets: SecretService, app: App) -> None:
    """Raise `NotFoundError` unless the app may use the secrets of its buckets."""
    for one in buckets:
        if one.secret_id:
            secrets.require_usable(one.secret_id, app)


def mounted_bucket(bucket: BucketMount, secrets: SecretService) -> MountedBucket:
    """What the node is to mount.

    Raises:
        NotFoundError: the secret is gone.
        InvalidError: it has no keys.
    """
    return MountedBucket(
        bucket.path,
        bucket.bucket_name,
        bucket.endpoint_url.rstrip("/"),
        bucket.key_prefix,
        bucket.read_only,
        bucket.requester_pays,
        credentials(bucket.bucket_name, secrets.env(bucket.secret_id)) if bucket.secret_id else {},
    )


def credentials(bucket_name: str, variables: dict[str, str]) -> dict[str, str]:
    """The keys in a secret, under Amazon's names. Raises `InvalidError`, which holds no value, when it has none."""
    for key_id, key in _KEY_NAMES:
        if variables.get(key_id) and variables.get(key):
            found = {"AWS_ACCESS_KEY_ID": variables[key_id], "AWS_SECRET_ACCESS_KEY": variables[key]}
            break
    else:
        raise InvalidError(
            f"The secret of the bucket {bucket_name!r} must have AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "GOOGLE_ACCESS_KEY_ID and GOOGLE_ACCESS_KEY_SECRET."
        )
    if variables.get("AWS_SESSION_TOKEN"):
        found["AWS_SESSION_TOKEN"] = variables["AWS_SESSION_TOKEN"]
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
    if region:
        if _REGION.fullmatch(region) is None:
            raise InvalidError(f"AWS_REGION in the secret of the bucket {bucket_name!r} is not the name of a region.")
        found["AWS_REGION"] = region
    return found
