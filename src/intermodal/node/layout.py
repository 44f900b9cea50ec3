"""Where the agent keeps things on disk.

<data>/storage/            what may become a lower layer of a container: image layers (the builder's) and mount trees
<data>/storage/trees/      mount trees, one a content hash
<data>/containers/<id>/    a container's writable files while it lives
<data>/runtime/<hash>/     the SDK as containers see it
<run>/                     on /run, so that uid 100000 can reach it wherever the data directory is
<run>/layers/              <data>/storage again, with owners shifted
<run>/runtime/             <data>/runtime again
<run>/runc/                the OCI runtime's state
<run>.buckets/<id>-<n>/    a bucket of a container; apart, since nothing must ever delete what is below it
<run>.volumes/<id>-<n>/    a volume of a container; apart, for the same reason
<run>/c/<id>/              a container: rootfs, socket directory, /etc files, OCI bundle
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from intermodal.runtimes.cgroups import data_key

#: What names of containers' interfaces begin with, on the machine's side, for every agent. (A name has 15 characters.)
INTERFACES = "imc"


@dataclass(frozen=True)
class NodeLayout:
    data: Path  #: absolute
    run: Path

    @property
    def key(self) -> str:
        """Six hex digits that name this agent on its machine: in cgroups, interfaces, the packet filter, on /run."""
        return data_key(self.data)

    @property
    def storage(self) -> Path:
        return self.data / "storage"

    @property
    def trees(self) -> Path:
        return self.storage / "trees"

    @property
    def runtime_copies(self) -> Path:
        return self.data / "runtime"

    @property
    def scratch(self) -> Path:
        return self.data / "containers"

    @property
    def layers_view(self) -> Path:
        return self.run / "layers"

    @property
    def runtime_view(self) -> Path:
        return self.run / "runtime"

    @property
    def runc_root(self) -> Path:
        return self.run / "runc"

    @property
    def containers(self) -> Path:
        return self.run / "c"

    @property
    def buckets(self) -> Path:
        return self.run.with_name(f"{self.run.name}.buckets")

    @property
    def volumes(self) -> Path:
        return self.run.with_name(f"{self.run.name}.volumes")

    @property
    def cgroup_parent(self) -> str:
        return f"/intermodal/{self.key}"

    @property
    def interface_prefix(self) -> str:
        return f"{INTERFACES}{self.key}"


def node_layout(data_dir: Path) -> NodeLayout:
    """The layout for a data directory; without root, the run directory is below the user's own."""
    data = data_dir.resolve()
    if os.geteuid() == 0:
        return NodeLayout(data, Path("/run/intermodal") / data_key(data))
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return NodeLayout(data, base / f"intermodal-{os.geteuid()}-{data_key(data)}")
