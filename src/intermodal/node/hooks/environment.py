"""The command, the working directory and the environment variables."""

from __future__ import annotations

from pathlib import Path

from intermodal.model.errors import BadImage
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.runtime_copy import RuntimeCopies
from intermodal.runtimes.interface import BindMount

SDK = "/opt/intermodal/sdk"
VENDOR = "/opt/intermodal/vendor"
INIT = "/opt/intermodal/init.py"
SOCKET = "/opt/intermodal/run/agent.sock"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

_DEFAULTS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
}
#: Programs that bring their own list of authorities look here for another.
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


class EnvironmentHook(Hook):
    """Has the runner started by the image's Python, with the SDK in place."""

    def __init__(self, copies: RuntimeCopies, certificates: Path = CERTIFICATES) -> None:
        self._copies = copies
        self._certificates = certificates

    async def open(self) -> None:
        await self._copies.open()

    async def prepare(self, container: Container) -> None:
        image = container.spec.image
        if not image.python:
            raise BadImage(f"The image {image.image_id} has no Python, which functions need; start from one that has.")
        copy = await self._copies.get(image.python_version)
        container.mounts += [
            BindMount(copy.sdk, SDK),
            BindMount(copy.vendor, VENDOR),
            BindMount(copy.init, INIT),
        ]
        container.argv = (image.python, INIT, f"{SDK}/modal/_container/entry.py")
        container.cwd = image.workdir or "/root"
        defaults = dict(_DEFAULTS)
        if self._certificates.is_file():
            container.mounts.append(BindMount(self._certificates.resolve(), str(CERTIFICATES)))
            defaults |= dict.fromkeys(_CERTIFICATE_VARIABLES, str(CERTIFICATES))
        container.env = {**defaults, **image.env, **container.spec.env}
        path = [*filter(None, container.env.get("PYTHONPATH", "").split(":"))]
        container.env |= {
            "PYTHONPATH": ":".join(["/root", SDK, *path, VENDOR]),
            "INTERMODAL_CONTAINER_ID": container.id,
            "INTERMODAL_SOCKET": SOCKET,
        }

    async def close(self) -> None:
        await self._copies.close()
