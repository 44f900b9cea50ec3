"""OpenStack Swift with its S3 API in one process, on one directory. Run by Debian's Python, which has Swift.

usage: swift_main.py DIRECTORY ADDRESS

Prints ``ready`` once it serves at ``http://ADDRESS:8080``. The keys are ``test:owner`` with ``owner-secret``, who may
do everything, and ``test:guest`` with ``guest-secret``, who may do nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PORTS = {"proxy": 8080, "account": 6202, "container": 6201, "object": 6200}

SWIFT = "[swift-hash]\nswift_hash_path_suffix = tests\n"
STORAGE = """
[DEFAULT]
swift_dir = {home}
devices = {home}/devices
mount_check = false
log_level = ERROR
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """
[DEFAULT]
swift_dir = {home}
log_level = ERROR
[pipeline:main]
pipeline = cache s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
allow_multipart_uploads = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_owner = owner-secret .admin
user_test_guest = guest-secret
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""


def write_files(home: Path) -> None:
    (home / "devices" / "disk").mkdir(parents=True)
    (home / "swift.conf").write_text(SWIFT)
    for kind in PORTS:
        text = PROXY if kind == "proxy" else STORAGE
        (home / f"{kind}.conf").write_text(text.format(home=home, kind=kind))


def write_rings(home: Path) -> None:
    from swift.common.ring import RingBuilder

    for kind in ("account", "container", "object"):
        builder = RingBuilder(1, 1, 0)
        address = {"ip": "127.0.0.1", "port": PORTS[kind]}
        replication = {"replication_ip": "127.0.0.1", "replication_port": PORTS[kind]}
        builder.add_dev({"region": 1, "zone": 1, "device": "disk", "weight": 1, **address, **replication})
        builder.rebalance()
        builder.get_ring().save(str(home / f"{kind}.ring.gz"))


def main() -> None:
    home, address = Path(sys.argv[1]), sys.argv[2]
    write_files(home)
    from swift.common import utils

    utils.set_swift_dir(str(home))
    utils.validate_configuration()
    write_rings(home)
    import eventlet
    import eventlet.wsgi
    from swift.common.storage_policy import reload_storage_policies
    from swift.common.wsgi import loadapp

    eventlet.monkey_patch()
    reload_storage_policies()
    servers: list[Any] = []
    for kind, port in PORTS.items():
        listener = eventlet.listen((address if kind == "proxy" else "127.0.0.1", port))
        app = loadapp(str(home / f"{kind}.conf"), global_conf={"log_name": kind})
        quiet = {"log_output": False}
        servers.append(eventlet.spawn(eventlet.wsgi.server, listener, app, max_size=200, **quiet))
    print("ready", flush=True)
    for server in servers:
        server.wait()


main()
