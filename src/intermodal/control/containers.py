"""A container as the server sees it, and what the node is told to start it."""

from __future__ import annotations

from dataclasses import dataclass, field

from intermodal.control import container_variables
from intermodal.control.apps import App
from intermodal.control.buckets import mounted_bucket
from intermodal.control.functions import Function, Revision
from intermodal.control.secret_service import SecretService
from intermodal.model.container import ContainerExit, ContainerSpec, MountedObject
from modal._wire.messages.runner import Start

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


def spec_of(container: Container, secrets: SecretService, stop_grace: float) -> ContainerSpec:
    """What the node is to start for a container.

    Args:
        stop_grace: seconds its inputs have when it is stopped.

    Raises:
        NotFoundError: a secret is gone.
        InvalidError: a secret has become too large.
    """
    function, app, revision = container.function, container.app, container.revision
    spec = revision.spec
    platform = {
        "MODAL_IS_REMOTE": "1",
        "MODAL_TASK_ID": container.container_id,
        "MODAL_IMAGE_ID": spec.image_id,
        "MODAL_ENVIRONMENT": app.environment.name,
    }
    env, variables = container_variables.split(secrets.merged(spec.secret_ids), platform)
    secrets.note_use([*spec.secret_ids, *(one.secret_id for one in spec.buckets)])
    start = Start(
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
    return ContainerSpec(
        container.container_id,
        revision.image,
        start,
        revision.body + function.parameters,
        revision.files,
        env,
        spec.resources,
        spec.block_network,
        tuple(MountedObject(one.path, one.object_id, one.read_only) for one in spec.volumes),
        tuple(mounted_bucket(one, secrets) for one in spec.buckets),
    )
