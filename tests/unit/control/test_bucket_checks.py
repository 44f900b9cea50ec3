from __future__ import annotations

import pytest

from intermodal.control.buckets import bucket_rules, credentials
from modal._wire.messages.function import BucketMount, FunctionSpec, Source, SourceKind
from modal.exception import InvalidError


def broken(bucket: BucketMount, **more: bool) -> list[str]:
    spec = FunctionSpec("f", Source(SourceKind.SERIALIZED), "im-1", buckets=[bucket], **more)  # type: ignore[arg-type]
    return [sentence for holds, sentence in bucket_rules(spec) if not holds]


@pytest.mark.parametrize("name", ["a.bucket-1", "abc", "0" * 63, "under_score"])
@pytest.mark.parametrize("url", ["", "https://s3.example.com", "http://10.0.0.1:8080/", "https://[::1]:9000"])
@pytest.mark.parametrize("prefix", ["", "a/", "a b/ü/,=/"])
def test_sound_buckets_are_accepted(name: str, url: str, prefix: str) -> None:
    assert broken(BucketMount("/b", name, url, prefix)) == []


@pytest.mark.parametrize("name", ["", "ab", "a" * 64, "a/b", "A-b", "-ab", "a,allow_root", "a\nb", "abc\n"])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    assert len(broken(BucketMount("/b", name))) == 1


@pytest.mark.parametrize(
    "url",
    [
        "s3.example.com",
        "file:///etc",
        "ftp://a.b",
        "https://a.b/path",
        "https://a.b?x=1",
        "https://user:key@a.b",
        "https://a.b,ro",
        "https://a.b\n",
        "https://a b",
        "https://a.b:99999",
        "https://",
        "https://[",
        "https://" + "a" * 400,
    ],
)
def test_urls_that_are_no_service_are_refused(url: str) -> None:
    assert len(broken(BucketMount("/b", "abc", url))) == 1


@pytest.mark.parametrize("prefix", ["a", "/", "/a/", "../", "a/../b/", "a//", "a\0/", "a\n/", "a" * 1000 + "/"])
def test_prefixes_that_are_no_directories_are_refused(prefix: str) -> None:
    assert len(broken(BucketMount("/b", "abc", key_prefix=prefix))) == 1


def test_a_blocked_network_reaches_no_bucket() -> None:
    assert "block_network" in broken(BucketMount("/b", "abc"), block_network=True)[0]


def test_keys_go_by_amazons_names_whoever_gave_them() -> None:
    google = {"GOOGLE_ACCESS_KEY_ID": "i", "GOOGLE_ACCESS_KEY_SECRET": "k", "OTHER": "x"}
    assert credentials("b", google) == {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k"}
    amazon = {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "eu-1"}
    assert credentials("b", amazon) == amazon


def test_a_secret_without_keys_or_with_a_strange_region_is_refused_without_its_values() -> None:
    with pytest.raises(InvalidError, match="must have AWS_ACCESS_KEY_ID") as refused:
        credentials("b", {"AWS_SECRET_ACCESS_KEY": "hidden"})
    assert "hidden" not in str(refused.value)
    with pytest.raises(InvalidError, match="region") as refused:
        credentials("b", {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k", "AWS_REGION": "x,allow_root"})
    assert "allow_root" not in str(refused.value)
