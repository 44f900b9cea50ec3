"""Deployed apps: how a draft becomes the next version, and how an earlier version comes back.

A deployed app has one id for as long as it is not stopped, and a function one id for each name in it. A version gives
each function a revision. Putting a version in force is one transaction in the journal and then one step without a pause
in memory, so calls see either the old version or the new one. Until then the version before goes on serving.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from intermodal.control.apps import App, Apps
from intermodal.control.bindings import follow
from intermodal.control.environments import Environment
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import FunctionService, record_of
from intermodal.control.functions import Function, Functions, Revision
from intermodal.control.schedules import Schedules
from intermodal.control.secret_service import SecretService
from intermodal.machines.app import AppChange, AppPhase
from intermodal.model.ids import derived_id, new_id
from intermodal.store.interface import AppRecord, AppVersionRecord, Change, RevisionRecord, Store, StoreError
from modal._wire.codec import decode, encode
from modal._wire.messages.app import AppPublished, AppState, AppStopReason
from modal._wire.messages.function import FunctionSpec
from modal.exception import InvalidError, NotFoundError

log = logging.getLogger(__name__)


class Deployments:
    """Puts versions of apps in force, one at a time.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        function_service: FunctionService,
        secrets: SecretService,
        fleet: Fleet,
        schedules: Schedules,
        rng: random.Random,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._function_service = function_service
        self._secrets = secrets
        self._fleet = fleet
        self._schedules = schedules
        self._rng = rng
        self._now = now
        self._lock = asyncio.Lock()

    # -- making versions ---------------------------------------------------------------------------------------

    # What has begun is completed, though its client may cancel it: where journal and memory differ, something else
    # would be in force after the server's next start.

    async def ensure(self, name: str, environment: Environment) -> App:
        """The app of that name, which is made when there is none: deployed, and without functions."""
        return await asyncio.shield(self._ensure(name, environment))

    async def _ensure(self, name: str, environment: Environment) -> App:
        async with self._lock:
            app = self._apps.find_deployed(name, environment)
            if app is None:
                self._apps.environments.get(environment.environment_id)  # it may have been deleted meanwhile
                record = self._new_record(name, environment)
                await self._store.write([record])
                app = self._apps.add(record)
            return app

    async def publish(self, draft_id: str, functions: Mapping[str, str], version: AppVersionRecord) -> AppPublished:
        """Make a draft the next version of its app.

        Args:
            draft_id: the draft.
            functions: the ids that its functions have in the draft, by tag.
            version: who deploys and how; the rest is filled in here.

        Raises:
            NotFoundError: the draft, or the app itself, was stopped meanwhile.
            StoreError: the version could not be stored; the one before stays in force.
        """
        return await asyncio.shield(self._publish(draft_id, functions, version))

    async def _publish(self, draft_id: str, functions: Mapping[str, str], version: AppVersionRecord) -> AppPublished:
        async with self._lock:
            earlier = await self._published(draft_id)
            if earlier is not None:  # the client asks again, after the server was gone
                return earlier
            draft = self._apps.get(draft_id)
            if draft.machine.state is not AppPhase.DRAFT:
                raise NotFoundError(f"The deployment {draft_id} was stopped before it was complete.")
            revisions = {tag: self._draft_revision(draft, tag, fid) for tag, fid in functions.items()}
            name, environment = draft.record.name or "", draft.environment
            app = self._apps.find_deployed(name, environment)
            record = app.record if app is not None else self._new_record(name, environment)
            version = replace(version, app_id=record.app_id, draft_id=draft_id)
            gone = replace(draft.record, stopped_at=self._now())
            changes: list[Change] = [gone, *self._secrets.adopt(draft_id, record.app_id)]
            for one in revisions.values():
                changes.append(RevisionRecord(one.revision_id, record.app_id, encode(one.spec), one.body))
            published = await self._put_in_force(app, record, version, revisions, changes)
            self._end_draft(draft, gone)
            return published

    async def rollback(self, app: App, to: int, version: AppVersionRecord) -> AppPublished:
        """Put the functions of an earlier version in force again, as a new version.

        Args:
            to: the version; 0 is the one before that in force.
            version: as for `publish`.

        Raises:
            InvalidError: there is no such version.
            NotFoundError: an image of that version is gone.
        """
        return await asyncio.shield(self._rollback(app, to, version))

    async def _rollback(self, app: App, to: int, version: AppVersionRecord) -> AppPublished:
        async with self._lock:
            current = app.record.version
            to = to or current - 1
            versions = {one.version: one for one in await self._store.app_versions(app.app_id)}
            if to not in versions or not 0 < to < current:
                raise InvalidError(_no_version(app, to))
            wanted = versions[to]
            kept = await self._store.revisions(list(wanted.revisions.values()))
            revisions = {}
            for tag, revision_id in wanted.revisions.items():
                one = kept[revision_id]
                spec = decode(FunctionSpec, one.spec)
                revisions[tag] = await self._function_service.load(revision_id, spec, one.body)
            version = replace(version, app_id=app.app_id, rollback_of=to, tag=version.tag or wanted.tag)
            return await self._put_in_force(app, app.record, version, revisions, [])

    async def _published(self, draft_id: str) -> AppPublished | None:
        """The version that a draft has become."""
        made = await self._store.version_of_draft(draft_id)
        record = await self._store.app(made.app_id) if made is not None else None
        if made is None or record is None or record.version < made.version:
            return None  # the last: it could not be stored when that was asked for, and never came into force
        ids = {tag: function_id_of(made.app_id, tag) for tag in made.revisions}
        return AppPublished(made.app_id, made.version, ids)

    def _new_record(self, name: str, environment: Environment) -> AppRecord:
        app_id = new_id("ap", self._rng)
        return AppRecord(app_id, name, name, environment.environment_id, AppState.DEPLOYED.value, "", self._now())

    def _draft_revision(self, draft: App, tag: str, function_id: str) -> Revision:
        function = self._functions.get(function_id)
        if function.app_id != draft.app_id:
            raise InvalidError(f"The function {tag!r} belongs to another app.")
        return function.revision

    def _end_draft(self, draft: App, record: AppRecord) -> None:
        draft.record = record
        draft.stop_reason = AppStopReason.FINISHED
        draft.machine.on(AppChange.PUBLISHED)
        draft.wake()
        for function in self._functions.of_app(draft.app_id):
            self._functions.remove(function.function_id)

    # -- putting one in force ----------------------------------------------------------------------------------

    async def _put_in_force(
        self,
        app: App | None,
        record: AppRecord,
        version: AppVersionRecord,
        revisions: Mapping[str, Revision],
        changes: list[Change],
    ) -> AppPublished:
        """Write the version, and then let new calls use it.

        Args:
            app: the app, None when this is its first version.
            record: its record.
            changes: what else belongs to the transaction.
        """
        number = record.version + 1
        functions = {
            tag: Function(function_id_of(record.app_id, tag), record.app_id, revision)
            for tag, revision in revisions.items()
        }
        ids = {tag: function.function_id for tag, function in functions.items()}
        removed = sorted(set(record.functions) - set(ids))
        new_record = replace(record, functions=ids, version=number)
        map_of = {tag: revision.revision_id for tag, revision in revisions.items()}
        version = replace(version, version=number, deployed_at=self._now(), revisions=map_of)
        try:
            await self._store.write([new_record, version, *map(record_of, functions.values()), *changes])
        except StoreError:
            self._take_back(app, record)
            raise
        if app is not None and not app.is_open:
            raise NotFoundError(f"The app {record.name!r} was stopped while it was being deployed. Deploy it again.")
        if app is None:
            app = self._apps.add(new_record)
        before, app.record = app.record, new_record
        last_log = app.log.last_seq
        for tag in removed:
            self._retire(before.functions[tag], tag, new_record)
        for function in functions.values():
            self._replace(function)
        self._schedules.app_changed(app)
        log.info("app %s (%s): version %d is in force", app.app_id, record.name, number)
        return AppPublished(
            app.app_id,
            number,
            ids,
            removed,
            last_log=last_log,
            next_runs=self._schedules.next_runs(ids),
            rollback_of=version.rollback_of,
        )

    def _take_back(self, app: App | None, record: AppRecord) -> None:
        """What could not be stored will be, once the disk has room: see to it that it has no effect then."""
        if app is None:
            self._store.write([replace(record, state=AppState.STOPPED.value, stopped_at=self._now())])
            return
        current = (self._functions.by_id.get(one) for one in record.functions.values())
        self._store.write([app.record, *(record_of(function) for function in current if function is not None)])

    def _replace(self, new: Function) -> None:
        function = self._functions.by_id.get(new.function_id)
        if function is None:
            self._functions.add(new)
            function = new
        function.revision, function.removed = new.revision, ""
        self._renew(function)
        for bound in self._bound_to(function):
            try:
                follow(bound, function)
            except InvalidError as error:  # it was made with options that the class now does not go with
                self._end(bound, str(error))
            else:
                bound.removed = ""
                self._renew(bound)

    def _renew(self, function: Function) -> None:
        """What runs may end; everything else runs as it is now."""
        function.start_failure, function.pending_reason = None, ""
        if function.can_run:
            self._fleet.replace_pool(function)
        elif function.is_pooled:
            self._fleet.retire_pool(function, f"The class {function.spec.name} needs parameters now.")
            function.is_pooled = False

    def _end(self, function: Function, reason: str) -> None:
        function.removed = reason
        self._fleet.retire_pool(function, reason)

    def _bound_to(self, cls: Function) -> list[Function]:
        """The functions that serve parameters of this class."""
        every = self._functions.of_app(cls.app_id)
        return [one for one in every if one.binding is not None and one.binding.class_id == cls.function_id]

    def _retire(self, function_id: str, tag: str, record: AppRecord) -> None:
        function = self._functions.by_id.get(function_id)
        if function is not None:
            reason = (
                f"The function {tag!r} is not in version {record.version} of the app {record.name!r}, which was "
                "deployed before this input began to run."
            )
            for one in (function, *self._bound_to(function)):
                self._end(one, reason)


def function_id_of(app_id: str, tag: str) -> str:
    """The id that a deployed app's function has through all versions."""
    return derived_id("fu", app_id.encode(), tag.encode())


def _no_version(app: App, version: int) -> str:
    current, name = app.record.version, app.record.name
    if version == current and current > 0:
        return f"Version {version} of the app {name!r} is in force already."
    if current < 2:
        wanted = f"version {version}, nor any earlier one" if version > 0 else "earlier version"
        return f"The app {name!r} has no {wanted} to return to."
    return f"The app {name!r} has no version {version}: choose one from 1 to {current - 1}."
