"""Builds images with buildah, a layer at a time, each layer once.

Each layer of a spec is one `buildah bud` on top of the layer below. A finished layer is an image of its own with an
id, a tag in buildah's store, and a record; so a later spec that shares its beginning builds only what differs.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import importlib.util
import os
import secrets as random_secrets
import shutil
import sys
from pathlib import Path

from intermodal.builder import dockerfile, graph
from intermodal.builder.apt_mirror import SOURCES_FILES, host_mirror, on_mirror, read_sources
from intermodal.builder.bases import Bases
from intermodal.builder.build_log import StepLog, failure_text
from intermodal.builder.buildah import Bud, Buildah, CommandFailed
from intermodal.builder.dockerfile import Recipe
from intermodal.builder.graph import Link
from intermodal.builder.host_trust import HostTrust, gather, shell_exports
from intermodal.builder.interface import BlobReader, BuildLog, SecretSource
from intermodal.builder.probe import probe_python
from intermodal.builder.python_source import find_uv
from intermodal.builder.records import ImageRecord, ImageRecords
from intermodal.builder.single_flight import SingleFlight
from intermodal.builder.storage import ImageStorage
from intermodal.model.container import BuiltImage
from intermodal.model.errors import DiskFull, RuntimeFailure
from intermodal.overlay.layer_tree import LayerTree
from modal._wire.messages.common import FileEntry
from modal._wire.messages.image import ImageSpec, LayerKind
from modal.exception import NotFoundError, RemoteError

DEFAULT_CACHE = Path("/var/cache/intermodal")
TAG = "localhost/intermodal"


class BuildahBuilder:
    """`intermodal.builder.interface.Builder` on buildah."""

    def __init__(
        self,
        data: Path,
        blobs: BlobReader,
        secrets: SecretSource,
        *,
        cache: Path = DEFAULT_CACHE,
        registry: bool = True,
    ) -> None:
        """Touches nothing until `open`.

        Args:
            data: the server's data directory; layers are kept below ``storage``.
            blobs: where context files are.
            secrets: where secrets of RUN steps are.
            cache: what servers of this machine share: base systems, downloaded packages.
            registry: whether to look for base images in a registry.
        """
        self._data = data
        self._blobs = blobs
        self._secrets = secrets
        self._cache = cache
        self._buildah = Buildah(data)
        self._storage = ImageStorage(self._buildah.root)
        self._records = ImageRecords(data / "images", self._buildah.root / "overlay")
        self._bases = Bases(cache, registry=registry)
        self._flights: SingleFlight[ImageRecord] = SingleFlight()
        self._trust: HostTrust | None = None
        self._fingerprint_key = b""
        self._closed = False

    async def open(self) -> None:
        self._buildah.check()
        self._records.open()
        self._fingerprint_key = _key_file(self._data / "images" / "fingerprint.key")
        await self._buildah.sweep()

    async def close(self) -> None:
        self._closed = True
        await self._flights.close()
        self._buildah.close()

    def image_id(self, spec: ImageSpec) -> str:
        return self._chain(spec)[-1].image_id

    async def get(self, image_id: str) -> BuiltImage | None:
        record = self._records.get(image_id)
        return None if record is None else self._records.built(record)

    async def build(self, spec: ImageSpec, log: BuildLog) -> BuiltImage:
        links = self._chain(spec)
        if not any(link.forced for link in links):
            finished = self._records.get(links[-1].image_id)
            if finished is not None:
                return self._records.built(finished)
        record: ImageRecord | None = None
        for link in links:
            record = await self._layer(link, record, log)
        assert record is not None
        return self._records.built(record)

    def _chain(self, spec: ImageSpec) -> tuple[Link, ...]:
        secret_ids = {secret_id for layer in spec.layers for secret_id in layer.secret_ids}
        return graph.chain(spec, {secret_id: self._fingerprint(secret_id) for secret_id in secret_ids})

    def _fingerprint(self, secret_id: str) -> str:
        """A keyed hash of a secret's content: the id of an image must not let anyone guess secrets."""
        content = repr(sorted(self._secrets.env(secret_id).items()))
        return hmac.new(self._fingerprint_key, content.encode(), hashlib.sha256).hexdigest()

    async def _layer(self, link: Link, parent: ImageRecord | None, log: BuildLog) -> ImageRecord:
        finished = self._records.get(link.image_id)
        if link.layer.kind is LayerKind.EXISTING:
            if finished is None:
                raise NotFoundError(f"There is no image {link.image_id} on this server.")
            return finished
        if finished is not None and not link.forced:
            return finished
        if self._closed:
            raise RuntimeFailure("The server is shutting down and builds no more images.")

        async def work(broadcast: BuildLog) -> ImageRecord:
            return await self._build_layer(link, parent, broadcast)

        # A rebuild on request must not be answered by a build that began before it was requested on another parent.
        key = (link.image_id, link.forced, parent.storage_id if parent else "")
        return await self._flights.run(key, log, work)

    async def _build_layer(self, link: Link, parent: ImageRecord | None, log: BuildLog) -> ImageRecord:
        try:
            with self._buildah.workspace() as workspace:
                return await self._build_in(workspace, link, parent, log)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"No space is left for images below {self._data}; free some, or move the data directory."
                ) from error
            raise RuntimeFailure(f"The image could not be built: {error}.") from error

    async def _build_in(self, workspace: Path, link: Link, parent: ImageRecord | None, log: BuildLog) -> ImageRecord:
        source = parent.source if parent else ""
        if parent is None:
            log.step(f"debian_slim (Python {link.layer.python_version})")
            base = await self._bases.debian_slim(link.layer.python_version, log)
            recipe, context, source = base.recipe, base.context, base.source
        else:
            recipe = self._recipe(link, parent)
            log.step(_title(link, recipe))
            context = workspace / "context"
            await asyncio.to_thread(self._fill_context, context, link.layer.context)
        volumes = await self._volumes(workspace, link, parent)
        file = workspace / "Dockerfile"
        file.write_text(recipe.text)
        tag = f"{TAG}:{link.image_id}"
        steps = StepLog(log, recipe.titles, quiet=len(recipe.titles) == 1)
        try:
            bud = Bud(file, context, tag, volumes, self._variables(link), use_cache=not link.forced)
            storage_id = await self._buildah.build(bud, workspace, steps.line)
        except CommandFailed:
            raise RemoteError(failure_text(steps.current or _title(link, recipe), steps.tail)) from None
        return self._record(link.image_id, storage_id, source)

    def _recipe(self, link: Link, parent: ImageRecord) -> Recipe:
        if link.layer.pip is not None and link.layer.kind is LayerKind.PIP_INSTALL:
            return dockerfile.pip_install(parent.storage_id, link.layer.pip)
        if link.layer.build is not None and link.layer.kind is LayerKind.BUILD_METHODS:
            return dockerfile.build_methods(parent.storage_id, link.layer.build)
        shell = parent.shell or dockerfile.DEFAULT_SHELL
        return dockerfile.commands(parent.storage_id, link.layer.commands, shell)

    def _record(self, image_id: str, storage_id: str, source: str) -> ImageRecord:
        stored = self._storage.read(storage_id)
        python, version = probe_python(LayerTree(stored.layers), stored.env.get("PATH", ""))
        record = ImageRecord(
            image_id=image_id,
            storage_id=storage_id,
            layers=tuple(path.parent.name for path in stored.layers),
            env=stored.env,
            workdir=stored.workdir,
            python=python,
            python_version=version,
            entrypoint=stored.entrypoint,
            shell=stored.shell,
            source=source,
        )
        self._records.put(record)
        return record

    async def _volumes(self, workspace: Path, link: Link, parent: ImageRecord | None) -> tuple[str, ...]:
        if parent is None:
            return ()
        if self._trust is None:
            self._trust = await asyncio.to_thread(gather, os.environ, (sys.executable, "-m", "pip"))
        handed = workspace / "handed"
        handed.mkdir()
        self._trust.write(handed)
        volumes = [f"{handed}:{dockerfile.MOUNT}:ro"]
        if link.layer.kind is LayerKind.PIP_INSTALL:
            packages = self._cache / "uv"
            packages.mkdir(parents=True, exist_ok=True)
            volumes += [f"{_uv()}:{dockerfile.UV}:ro", f"{packages}:{dockerfile.UV_CACHE}:rw"]
        if link.layer.build is not None and link.layer.kind is LayerKind.BUILD_METHODS:
            (handed / "build.json").write_text(dockerfile.build_request(link.layer.build))
            modules = workspace / "modules"
            await asyncio.to_thread(self._fill_context, modules, link.layer.build.files)
            volumes += [f"{modules}:{dockerfile.MODULES}:ro", *_sdk_volumes()]
        return (*volumes, *self._apt_sources(workspace, LayerTree(self._records.paths(parent))))

    def _variables(self, link: Link) -> str:
        """Shell assignments for RUN steps: what the host trusts, and the secrets."""
        variables = self._trust.environment() if self._trust is not None else {}
        for secret_id in link.layer.secret_ids:
            variables.update(self._secrets.env(secret_id))
        self._secrets.note_use(link.layer.secret_ids)
        return shell_exports(variables)

    @staticmethod
    def _apt_sources(workspace: Path, tree: LayerTree) -> list[str]:
        """Mounts that point apt in the build at this machine's mirror."""
        mirror = host_mirror(read_sources())
        volumes = []
        for number, path in enumerate(SOURCES_FILES):
            found = tree.find(path)
            text = found.read_text(errors="replace") if found is not None and found.is_file() else ""
            if on_mirror(text, mirror) != text:
                replacement = workspace / f"apt-{number}.sources"
                replacement.write_text(on_mirror(text, mirror))
                volumes.append(f"{replacement}:{path}:ro")
        return volumes

    def _fill_context(self, context: Path, entries: list[FileEntry]) -> None:
        """Copy the files that COPY may name. Paths were checked; nothing here is a link."""
        context.mkdir()
        for entry in entries:
            source = Path(str(self._blobs.path(entry.digest)))
            target = context / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
            target.chmod(entry.mode & 0o777)


def _uv() -> Path:
    found = find_uv()
    if found is None:
        raise RuntimeFailure("uv is not installed; it is needed to install Python packages in images. pip install uv")
    return found


def _sdk_volumes() -> list[str]:
    """Mounts of the SDK and what it needs, for steps that run Python code of the user."""
    places = (("modal", dockerfile.SDK), ("cloudpickle", dockerfile.VENDOR))
    return [f"{_package(name)}:{place}/{name}:ro" for name, place in places]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeFailure(f"The Python package {name} is not installed beside the server.")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _title(link: Link, recipe: Recipe) -> str:
    if len(recipe.titles) == 1:
        return recipe.titles[0]
    return f"{recipe.titles[0]} (and {len(recipe.titles) - 1} more)"


def _key_file(path: Path) -> bytes:
    """A random key that only we can read, made on first use."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(random_secrets.token_bytes(32))
            os.fsync(file.fileno())
        temporary.replace(path)
    return path.read_bytes()
