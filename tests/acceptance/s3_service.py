"""Real S3 services for tests, in a network namespace that containers can reach.

OpenStack Swift of Debian's wants keys; rclone, which serves a directory, gives anybody what is in it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

OWNER = ("test:owner", "owner-secret")
_REGION = "us-east-1"


class S3Service:
    """Serves from `start` to `stop`, and is its own client."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._name = f"s3t{os.getpid() % 100_000}"
        # A range for benchmarks of networks: nobody else has it.
        base = 198 << 24 | 18 << 16 | (os.getpid() % 16_384) << 2
        self._outside, self._address = (".".join(map(str, (base + last).to_bytes(4, "big"))) for last in (1, 2))
        self._processes: list[subprocess.Popen[str]] = []
        self.public = home / "public"  #: the directory whose subdirectories are public buckets

    @property
    def url(self) -> str:
        return f"http://{self._address}:8080"

    @property
    def public_url(self) -> str:
        return f"http://{self._address}:8081"

    def start(self) -> None:
        name = self._name
        for command in (
            f"ip netns add {name}",
            f"ip link add {name} type veth peer name eth0 netns {name}",
            f"ip address add {self._outside}/30 dev {name}",
            f"ip link set {name} up",
            f"ip -n {name} address add {self._address}/30 dev eth0",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} link set lo up",
            f"ip -n {name} route add default via {self._outside}",
        ):
            subprocess.run(command.split(), check=True, capture_output=True, text=True)
        self.public.mkdir()
        rclone = Path(sys.executable).with_name("rclone")
        serve = [rclone, "serve", "s3", "--config", os.devnull, "--addr", f"{self._address}:8081", self.public]
        self._run(serve, "Starting s3 server")
        script = Path(__file__).with_name("swift_main.py")
        self._run(["/usr/bin/python3", "-I", script, self._home, self._address], "ready")

    def _run(self, command: list[str | Path], last: str) -> None:
        """Start a program in the namespace; it serves once it has said `last`."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        said = ""
        while last not in said:
            line = process.stdout.readline()
            assert line, f"{command[0]} ended: {said}"
            said += line

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        for command in (["ip", "link", "delete", self._name], ["ip", "netns", "delete", self._name]):
            subprocess.run(command, capture_output=True)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and does not answer while the block runs."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._processes:
                process.send_signal(signal.SIGCONT)

    # -- the client

    def make_bucket(self, bucket: str) -> None:
        self._ask("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._ask("PUT", f"/{bucket}/{key}", data)

    def get(self, bucket: str, key: str) -> bytes:
        return self._ask("GET", f"/{bucket}/{key}")

    def keys(self, bucket: str) -> set[str]:
        listed = ElementTree.fromstring(self._ask("GET", f"/{bucket}"))
        return {one.text or "" for one in listed.iter() if one.tag.endswith("}Key")}

    def _ask(self, method: str, path: str, data: bytes = b"") -> bytes:
        """One request, signed as Amazon's version 4 says."""
        key_id, key = OWNER
        now = datetime.datetime.now(datetime.timezone.utc)
        moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(data).hexdigest()
        headers = {"host": f"{self._address}:8080", "x-amz-content-sha256": digest, "x-amz-date": moment}
        names = ";".join(sorted(headers))
        lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
        request = "\n".join([method, quote(path), "", *lines, "", names, digest])
        scope = f"{day}/{_REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
        secret = f"AWS4{key}".encode()
        for part in scope.split("/"):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        connection = http.client.HTTPConnection(self._address, 8080, timeout=30)
        try:
            connection.request(method, quote(path), data, headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {body.decode(errors='replace')}"
        return body
