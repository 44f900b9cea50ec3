from __future__ import annotations

from pathlib import Path

from intermodal.node.mount_table import mounts_below

TABLE = """\
22 1 254:0 / / rw - ext4 /dev/root rw
30 22 0:25 / /run/x rw - tmpfs tmpfs rw
31 30 0:26 / /run/x/c/a\\040b/rootfs rw - overlay overlay rw
32 30 0:27 / /run/x/layers ro - ext4 /dev/root rw
33 22 0:28 / /run/xy rw - tmpfs tmpfs rw
34 32 0:29 / /run/x/layers rw - tmpfs tmpfs rw
35 30 0:30 / /run/x/c/\u3000\x0b\udcff rw - tmpfs tmpfs rw""".split("\n")


def test_mounts_are_found_newest_first() -> None:
    assert mounts_below(Path("/run/x"), TABLE) == [
        Path("/run/x/c/\u3000\x0b\udcff"),
        Path("/run/x/layers"),
        Path("/run/x/layers"),
        Path("/run/x/c/a b/rootfs"),
        Path("/run/x"),
    ]
    assert mounts_below(Path("/run/none"), TABLE) == []
