"""The programs that show a bucket as a directory: how they are called, and what they mean when they fail. Pure.

mount-s3 is used where it is installed, else s3fs, which Debian has. Keys are in the environment of the process, where
only root and the process itself can read them (see `fuse_launcher`); never in its arguments or in files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from intermodal.model.container import MountedBucket
from intermodal.model.errors import RuntimeFailure
from modal.exception import Error, InvalidError, NotFoundError

MOUNT_S3 = "mount-s3"
S3FS = "s3fs"
_MASK = "022"
_AMAZON = "https://s3.amazonaws.com"
#: Seconds and tries until a service that does not answer is given up.
_CONNECT_TIMEOUT, _TRANSFER_TIMEOUT, _TRIES = 10, 60, 3
#: Seconds for which s3fs remembers what is in the bucket: so long others' changes may go unnoticed.
_REMEMBERED = 1

_MISSING = ("not found", "nosuchbucket", "does not exist")
_DENIED = ("invalid credentials", "denied", "forbidden", "signaturedoesnotmatch", "invalidaccesskeyid")
_WRONG_REGION = ("bad request", "authorizationheadermalformed", "wrong region")
_UNREACHABLE = ("unable to connect", "timed out", "connection refused", "dns", "failed to connect")


@dataclass(frozen=True)
class FuseCommand:
    """A program to be run in the foreground."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)


def fuse_command(program: str, bucket: MountedBucket, point: Path, owner: int) -> FuseCommand:
    """Mount `bucket` at `point`, with files that belong to user and group `owner`. `program` is one of the two."""
    build = _mount_s3 if Path(program).name == MOUNT_S3 else _s3fs
    argv = build(bucket, point, owner)
    return FuseCommand((program, *argv), _environment(bucket.credentials))


def _s3fs(bucket: MountedBucket, point: Path, owner: int) -> list[str]:
    prefix = bucket.key_prefix.rstrip("/")
    options = [
        f"url={bucket.endpoint_url or _AMAZON}",
        "allow_other",
        f"uid={owner}",
        f"gid={owner}",
        f"umask={_MASK}",
        "sigv4",
        f"connect_timeout={_CONNECT_TIMEOUT}",
        f"readwrite_timeout={_TRANSFER_TIMEOUT}",
        f"retries={_TRIES}",
        f"stat_cache_expire={_REMEMBERED}",
        "tmpdir=/tmp",
    ]
    if bucket.endpoint_url:
        options.append("use_path_request_style")
    if "AWS_REGION" in bucket.credentials:
        options.append(f"endpoint={bucket.credentials['AWS_REGION']}")
    if "AWS_ACCESS_KEY_ID" not in bucket.credentials:
        options.append("public_bucket=1")
    if bucket.requester_pays:
        options.append("requester_pays")
    if bucket.read_only:
        options.append("ro")
    name = f"{bucket.name}:/{prefix}" if prefix else bucket.name
    return [name, str(point), "-f", *(word for option in options for word in ("-o", option))]


def _mount_s3(bucket: MountedBucket, point: Path, owner: int) -> list[str]:
    words = [bucket.name, str(point), "--foreground", "--allow-other", f"--uid={owner}", f"--gid={owner}"]
    if bucket.key_prefix:
        words.append(f"--prefix={bucket.key_prefix}")
    if bucket.endpoint_url:
        words += [f"--endpoint-url={bucket.endpoint_url}", "--force-path-style"]
    if "AWS_REGION" in bucket.credentials:
        words.append(f"--region={bucket.credentials['AWS_REGION']}")
    if "AWS_ACCESS_KEY_ID" not in bucket.credentials:
        words.append("--no-sign-request")
    if bucket.requester_pays:
        words.append("--requester-pays")
    words += ["--read-only"] if bucket.read_only else ["--allow-delete", "--allow-overwrite"]
    return words


def _environment(credentials: Mapping[str, str]) -> dict[str, str]:
    """All of the process's environment: nothing of the server's own, whose keys it could find there."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "AWS_EC2_METADATA_DISABLED": "true",
        **{name: value for name, value in credentials.items() if name != "AWS_REGION"},
    }


def failure_of(bucket: MountedBucket, said: str) -> Error:
    """Why it cannot be mounted, from what the program `said` before it ended."""
    what = f"The bucket {bucket.name!r} cannot be mounted at {bucket.path!r}"
    at = bucket.endpoint_url or _AMAZON
    text = said.lower()
    if any(word in text for word in _MISSING):
        if bucket.credentials:
            return NotFoundError(f"{what}: there is no such bucket at {at}.")
        return NotFoundError(f"{what}: there is no such public bucket at {at}; one that is not public needs a secret.")
    if any(word in text for word in _DENIED):
        keys = "the keys of its secret are wrong or" if bucket.credentials else "without a secret one"
        return InvalidError(f"{what}: access is denied by {at}; {keys} may not list it.")
    if any(word in text for word in _UNREACHABLE):
        return RuntimeFailure(f"{what}: {at} cannot be reached from containers.")
    if any(word in text for word in _WRONG_REGION):
        return InvalidError(f"{what}: {at} refuses the request; AWS_REGION of its secret may be wrong.")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return RuntimeFailure(
        f"{what}: {lines[-1][:300] if lines else 'the program that mounts it ended without a reason'}."
    )
