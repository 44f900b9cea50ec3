from __future__ import annotations

from typing import Any

import pytest

import modal
from modal.exception import InvalidError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bucket_name": ""}, "name of a bucket"),
        ({"bucket_name": "abc", "key_prefix": "a"}, "must end with a slash"),
        ({"bucket_name": "abc", "bucket_endpoint_url": 3}, "bucket_endpoint_url must be a string"),
        ({"bucket_name": "abc", "secret": {"A": "b"}}, r"must be a modal\.Secret"),
        ({"bucket_name": "abc", "oidc_auth_role_arn": "arn:aws:iam::1:role/r"}, "oidc_auth_role_arn needs a server"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        modal.CloudBucketMount(**arguments)


def test_a_role_is_accepted_beside_keys() -> None:
    secret = modal.Secret.from_dict({"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k"})
    bucket = modal.CloudBucketMount("abc", secret=secret, oidc_auth_role_arn="arn:aws:iam::1:role/r")
    assert bucket.secret is secret


def test_a_bucket_and_a_volume_are_not_mounted_within_each_other() -> None:
    app = modal.App()
    bucket, volume = modal.CloudBucketMount("abc"), modal.Volume.from_name("v")
    with pytest.raises(InvalidError, match="within"):

        @app.function(volumes={"/data": volume, "/data/bucket": bucket})
        def f() -> None:
            pass
