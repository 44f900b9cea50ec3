"""What the SDK's image steps become, built for real."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakes import Blobs, Log, Secrets

from intermodal.builder.builder import BuildahBuilder
from intermodal.overlay.layer_tree import LayerTree
from modal._objects.image import Image
from modal._objects.image_layers import to_spec
from modal._wire.messages.blob import BLOB_MISSING, BlobDigests, BlobRef

pytestmark = pytest.mark.e2e


class Uploads:
    """The client's side of the blob store of the builder."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    async def unary(self, method, request, body=b"", *, timeout=None, key=None):
        assert method is BLOB_MISSING
        return BlobDigests(request.digests), b""

    def stream(self, method, request, body=b"", *, timeout=None):
        uploads = self

        class Put:
            async def __aenter__(self):
                self.data = b""
                return self

            async def __aexit__(self, *error) -> None: ...

            async def send(self, item, body=b"") -> None:
                self.data += body

            async def end(self) -> None: ...

            async def result(self):
                assert hashlib.sha256(self.data).hexdigest() == request.digest
                uploads.blobs.add("", self.data)
                return BlobRef(request.digest, request.size), b""

        return Put()


async def test_the_steps_of_an_image_do_what_they_say(
    builder: BuildahBuilder, blobs: Blobs, secrets: Secrets, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    (files / "a dir").mkdir(parents=True)
    (files / "a dir" / "b c.txt").write_text("spaced")
    (files / ".dockerignore").write_text("**\n")
    (files / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (files / "run.sh").chmod(0o755)
    image = (
        Image.debian_slim("3.11")
        .env({"PLAIN": "1", "ODD": 'it\'s $HOME \\ "x" #y'})
        .workdir("/work dir")
        .shell(["/bin/bash", "-c"])
        .add_local_dir(files, "/files", copy=True)
        .add_local_file(files / "run.sh", "/tmp/", copy=True)
        .run_commands('printf %s "$ODD" > odd', "set -e\nfor i in 1 2; do\n  echo $i >> loop\ndone", "[[ -n $PLAIN ]]")
        .run_commands("/tmp/run.sh > ran", "stat -c %a /tmp > mode")
        .dockerfile_commands("LABEL a=b", ["RUN echo docker > /docker"])
    )

    async def no_secret(secret) -> str:
        raise AssertionError("no secret is used")

    built = await builder.build(await to_spec(Uploads(blobs), image._layers, no_secret), Log())
    tree = LayerTree(built.layers)

    def read(path: str) -> str:
        found = tree.find(path)
        assert found is not None, f"{path} is not in the image"
        return found.read_text()

    assert read("/work dir/odd") == 'it\'s $HOME \\ "x" #y'
    assert read("/work dir/loop") == "1\n2\n"
    assert read("/work dir/ran") == "ran\n"
    assert read("/work dir/mode") == "1777\n"
    assert read("/files/a dir/b c.txt") == "spaced"
    assert read("/files/.dockerignore") == "**\n"
    assert read("/docker") == "docker\n"
