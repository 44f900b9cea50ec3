"""Commits what a dead server left of its mounts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from intermodal.volumes.durable import remove_long, remove_tree
from intermodal.volumes.session import GONE, WHOLE, Session, Version, remove_session
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.upper_layer import copy_delta, delta_of, settle
from modal.exception import Error, NotFoundError

log = logging.getLogger(__name__)


def recover(store: VolumeStore, volume_id: str) -> int:
    """Commit what a dead server left of a volume; returns how many layers that were. Only while nothing is mounted.

    A mount whose files cannot be read stays for the next start.

    Raises:
        OSError: the disk failed; what is not committed stays for the next start.
    """
    folder = store.folder(volume_id)
    try:
        version = store.version(volume_id)
    except NotFoundError:
        return 0  # it was being made
    for draft in folder.glob("pending/*.draft"):
        remove_tree(draft)
    store.move_committed(volume_id, version)
    for path in sorted((folder / "open").iterdir()):
        try:
            session = _left_in(volume_id, path)
            if session is not None:
                _take_up(store, session)
        except (Error, OSError, ValueError):
            log.exception("what the mount %s has written to volume %s cannot be committed", path.name, volume_id)
            store.hold_everything(volume_id)  # it may need any layer
            continue
        remove_session(path)
    layers = sorted(path.name for path in (folder / "pending").iterdir())
    for layer in layers:
        store.publish(volume_id, layer)
    for manifest in (folder / "manifests").iterdir():
        if not (folder / "layers" / manifest.name).exists():
            manifest.unlink()  # of a layer that was not to be
    store.collect(volume_id)
    return len(layers)


def _left_in(volume_id: str, folder: Path) -> Session | None:
    """The session that had a directory, if anything is to be committed there. Raises OSError, ValueError."""
    upper, old, copied = folder / "upper", folder / "old", folder / "copied.json"
    if folder.name.startswith(WHOLE):
        return None  # whoever was changing files was never told that it was done
    if folder.name.endswith(GONE) or old.exists() or not upper.is_dir():
        return None  # nothing is missing, or the changes are in a pending layer
    try:
        version = Version.from_json((folder / "version.json").read_bytes())
    except FileNotFoundError:
        return None  # it was never mounted
    session = Session(volume_id, folder.name, folder, version)
    if copied.exists():
        session.copied = {path: tuple(values) for path, values in json.loads(copied.read_bytes()).items()}
    return session if session.copied or any(upper.iterdir()) else None


def _take_up(store: VolumeStore, session: Session) -> None:
    """Make what a session had written a pending layer."""
    layer = store.new_layer(session.volume_id)
    pending = store.pending(session.volume_id, layer)
    remove_long(session.upper)
    below = store.below(session)
    if not session.copied:
        settle(session.upper, below)
        session.upper.rename(pending)
    elif delta := delta_of(session, store.changes(session), below):
        copy_delta(session.upper, store.draft(session.volume_id, layer), pending, delta)
