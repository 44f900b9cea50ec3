"""A container as the server sees it, and what the node is told to start it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from intermodal.control import container_variables
from intermodal.control.apps import App
from intermodal.control.buckets import mounted_bucket
from intermodal.control.functions import Function, Revision
from intermodal.control.secret_service import SecretService
from intermodal.model.container import ContainerExit, ContainerSpec, MountedObject
from intermodal.model.errors import BadImage, MissingTool, RuntimeFailure
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.runner import Start
from modal.exception import InvalidError, NotFoundError

log = logging.getLogger(__name__)
_CREDIT = 4096  # unanswered inputs a runner must be ready to hold; the scheduler sends far fewer


@dataclass(slots=True)
class Container:
    """A container as the server sees it."""

    container_id: str
    function: Function
    app: App
    revision: Revision  #: of the function, as it was when this container was asked for
    started_at: float  #: seconds since the epoch
    is_ready: bool = False
    is_stopping: bool = False  #: was told to finish: what it loses now is not its inputs' doing
    said_why: bool = False  #: reported why it could not start
    running: dict[str, float] = field(default_factory=dict)  #: unanswered input id -> when it was pushed, oldest first
    begun: dict[str, float] = field(default_factory=dict)  #: input id -> when the watchdog first saw it run
    timed_out: set[str] = field(default_factory=set)  #: inputs for whose sake it was killed
    has_terminal: bool = False  #: someone is asked at a terminal: time does not count meanwhile
    may_have_lines: bool = True  #: it takes inputs that nobody has scheduled
    has_line: bool = False  #: clients may have sent it inputs directly
    exit: ContainerExit | None = None

    @property
    def inputs_at_once(self) -> int:
        """How many inputs it runs side by side, or together as a batch."""
        concurrency = self.revision.spec.concurrency
        return max(concurrency.max_concurrent_inputs, concurrency.batch_max_size)

    def came_up(self) -> None:
        """It takes inputs from now on."""
        self.is_ready = True
        self.function.starting -= 1
        self.function.running += 1
        self._tell_start_failure(None)

    def could_not_start(self, error: ErrorInfo, payload: bytes = b"") -> None:
        """Keep why, for the inputs that wait. The first reason counts: later ones are its consequences."""
        if not self.said_why:
            self.said_why = True
            self._tell_start_failure((error, payload))

    def _tell_start_failure(self, failure: tuple[ErrorInfo, bytes] | None) -> None:
        """What a replaced revision had is no news."""
        if self.revision.revision_id == self.function.revision.revision_id:
            self.function.start_failure = failure

    def give(self, input_ids: Sequence[str], now: float) -> None:
        """It gets these inputs, to run after those that it has."""
        self.running.update(dict.fromkeys(input_ids, now))
        self.function.running_inputs += len(input_ids)

    def took(self, input_ids: Sequence[str], now: float) -> None:
        """It has these inputs, which nobody gave to it, and runs them before those that it was given."""
        self.running = {**dict.fromkeys(input_ids, now), **self.running}
        self.function.running_inputs += len(input_ids)

    def gave_back(self, input_ids: Sequence[str]) -> list[str]:
        """It has these inputs no more; returns those that it had."""
        mine = [one for one in input_ids if self.running.pop(one, None) is not None]
        self.function.running_inputs -= len(mine)
        return mine

    def ended(self, exit: ContainerExit) -> None:
        """It is gone. What it had not answered stays in `running`."""
        self.exit = exit
        if self.is_ready:
            self.function.running -= 1
        else:
            self.function.starting -= 1
            if not self.is_stopping:
                self.could_not_start(ErrorInfo("ExecutionError", exit.detail))
        self.function.running_inputs -= len(self.running)


def spec_of(container: Container, secrets: SecretService, stop_grace: float) -> ContainerSpec:
    """What the node is to start for a container.

    Args:
        stop_grace: seconds its inputs have when it is stopped.

    Raises:
        NotFoundError: a secret is gone.
        InvalidError: a secret has become too large.
    """
    revision, parameters = container.revision, container.function.parameters
    spec = revision.spec
    platform = {
        "MODAL_IS_REMOTE": "1",
        "MODAL_TASK_ID": container.container_id,
        "MODAL_IMAGE_ID": spec.image_id,
        "MODAL_ENVIRONMENT": container.app.environment.name,
    }
    env, variables = container_variables.split(secrets.merged(spec.secret_ids), platform)
    secrets.note_use([*spec.secret_ids, *(one.secret_id for one in spec.buckets)])
    return ContainerSpec(
        container.container_id,
        revision.image,
        _start_of(container, variables, stop_grace),
        revision.body + parameters,
        revision.files,
        env,
        spec.resources,
        spec.block_network,
        tuple(MountedObject(one.path, one.object_id, one.read_only) for one in spec.volumes),
        tuple(mounted_bucket(one, secrets) for one in spec.buckets),
    )


def _start_of(container: Container, variables: dict[str, str], stop_grace: float) -> Start:
    """What its runner is told first."""
    function, app, spec = container.function, container.app, container.revision.spec
    return Start(
        container_id=container.container_id,
        app_id=app.app_id,
        function_id=function.function_id,
        function_name=spec.name,
        environment=app.environment.name,
        source=spec.source,
        is_generator=spec.is_generator,
        timeout=spec.timeout,
        concurrency=spec.concurrency,
        credit=_CREDIT,
        objects=app.record.functions,
        app_name=app.record.name or "",
        app_description=app.record.description,
        stop_grace=stop_grace,
        interactive=app.is_interactive,
        cls=spec.cls,
        parameters_size=len(function.parameters),
        variables=variables,
        mounts=spec.volumes,
    )


def start_failure(container: Container, error: Exception) -> tuple[ErrorInfo, bool]:
    """Why a container could not be started, and whether it cannot help to try again.

    Args:
        error: what `spec_of` or the node raised. One that nobody foresaw goes to the log.
    """
    if isinstance(error, RuntimeFailure):
        return ErrorInfo("InternalFailure", str(error)), isinstance(error, (MissingTool, BadImage))
    if isinstance(error, (NotFoundError, InvalidError)):
        return ErrorInfo(type(error).__name__, str(error)), True
    log.error("container %s could not be started", container.container_id, exc_info=error)
    sentence = "The container could not be started because of an internal error; the server's log has the reason."
    return ErrorInfo("InternalFailure", sentence), False
