"""Apps: creating, publishing, watching and stopping them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method, Shape


class AppState(enum.Enum):
    """Where an app is in its life."""

    EPHEMERAL = "ephemeral"  #: stops when the client session that created it is gone for good
    DETACHED = "detached"  #: outlives its client until stopped or idle of calls
    DEPLOYED = "deployed"
    DRAFT = "draft"  #: a deployment that is being prepared; nothing of it can be called
    STOPPED = "stopped"


class AppStopReason(enum.Enum):
    FINISHED = "finished"  #: the client ended it after its entrypoint returned
    INTERRUPTED = "interrupted"  #: Ctrl-C
    FAILED = "failed"  #: the entrypoint raised
    CLIENT_GONE = "client_gone"
    STOPPED_BY_USER = "stopped_by_user"
    SERVER_STOPPED = "server_stopped"


@dataclass(frozen=True)
class AppCreate:
    """With `state` DEPLOYED it makes a draft of the deployed app `name`, which `AppPublish` makes its next version."""

    description: str
    environment: str
    state: AppState = AppState.EPHEMERAL
    name: Optional[str] = None
    interactive: bool = False  #: its containers may ask for the terminal of the client that runs it


@dataclass(frozen=True)
class AppCreated:
    app_id: str
    page_url: str = ""


@dataclass(frozen=True)
class AppPublish:
    """Tell the server the complete set of objects of the app, by tag."""

    app_id: str
    functions: dict[str, str] = field(default_factory=dict)  #: tag -> fu-…
    state: AppState = AppState.EPHEMERAL
    tag: str = ""  #: of a draft: what the user calls this version
    client_version: str = ""


@dataclass(frozen=True)
class AppPublished:
    """What can be called now. A deployed app and its functions keep their ids through all versions."""

    app_id: str = ""
    version: int = 0  #: of a deployed app
    functions: dict[str, str] = field(default_factory=dict)  #: tag -> fu-…
    removed: list[str] = field(default_factory=list)  #: tags that the version before had
    page_url: str = ""
    last_log: int = 0  #: `seq` of the last log entry before
    next_runs: dict[str, float] = field(default_factory=dict)  #: tag -> when it is due, in seconds since the epoch
    rollback_of: int = 0  #: the version whose functions it took; 0: it brought its own


@dataclass(frozen=True)
class AppObjects:
    """The published objects of an app, for code that runs in its containers."""

    app_id: str
    description: str
    name: Optional[str]
    functions: dict[str, str] = field(default_factory=dict)  #: tag -> fu-…
    version: int = 0


@dataclass(frozen=True)
class AppRef:
    app_id: str


@dataclass(frozen=True)
class AppName:
    """A deployed app by its name."""

    name: str
    environment: str


@dataclass(frozen=True)
class AppSearch:
    """An app by what a person calls it: its id, the name it is deployed as, or the description of one that runs."""

    identifier: str
    environment: str


@dataclass(frozen=True)
class AppInfo:
    app_id: str
    name: Optional[str]
    description: str
    environment: str
    state: AppState
    created_at: float  #: seconds since the epoch
    stopped_at: Optional[float] = None
    version: int = 0  #: of a deployed app
    functions: list[str] = field(default_factory=list)  #: tags
    containers: int = 0  #: that run
    next_run: Optional[float] = None  #: when a schedule of it is due next, in seconds since the epoch


@dataclass(frozen=True)
class AppList:
    environment: str = ""  #: "": of all


@dataclass(frozen=True)
class AppInfos:
    apps: list[AppInfo] = field(default_factory=list)  #: what runs first, then what stopped last


@dataclass(frozen=True)
class AppVersion:
    version: int
    deployed_at: float  #: seconds since the epoch
    deployed_by: str
    client_version: str
    tag: str
    functions: list[str] = field(default_factory=list)  #: tags
    rollback_of: int = 0  #: the version that it brought back; 0: none


@dataclass(frozen=True)
class AppVersions:
    versions: list[AppVersion] = field(default_factory=list)  #: oldest first


@dataclass(frozen=True)
class AppRollback:
    """Deploy the functions of an earlier version again, as a new version."""

    app_id: str
    version: int = 0  #: 0: the one before that in force
    client_version: str = ""


@dataclass(frozen=True)
class AppStop:
    app_id: str
    reason: AppStopReason = AppStopReason.FINISHED


class LogStream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"  #: said by the platform: why a container is pending, that it was killed, …


@dataclass(frozen=True)
class LogEntry:
    """A piece of output. `text` holds line ends as printed; a long line may span entries."""

    seq: int  #: increasing within the app; what `AppEvents.after` takes
    at: float  #: seconds since the epoch
    stream: LogStream
    text: str
    function_id: str = ""
    container_id: str = ""
    input_id: str = ""


@dataclass(frozen=True)
class FunctionStatus:
    """A function's pool as people want to see it."""

    function_id: str
    name: str
    starting: int = 0
    running: int = 0
    queued_inputs: int = 0
    running_inputs: int = 0
    done_inputs: int = 0
    failed_inputs: int = 0
    pending_reason: str = ""  #: why no container can start now; empty when none is waited for


@dataclass(frozen=True)
class AppEvents:
    """Watch an app: its output and its progress, from just after log entry `after`."""

    app_id: str
    after: int = 0
    want_status: bool = True
    interactive: bool = False  #: this client runs the app, and gives its terminal to containers that ask for it


@dataclass(frozen=True)
class AppEvent:
    """Exactly one of the fields is set, or `stopped` with the reason as the last event."""

    logs: list[LogEntry] = field(default_factory=list)
    status: Optional[FunctionStatus] = None
    stopped: Optional[AppStopReason] = None
    offer: str = ""  #: a container asks for the client's terminal; `interact.attach` takes the offer of this id


APP_CREATE = Method("app.create", AppCreate, AppCreated, mutating=True)
APP_PUBLISH = Method("app.publish", AppPublish, AppPublished, mutating=True)
APP_OBJECTS = Method("app.objects", AppRef, AppObjects)
APP_LOOKUP = Method("app.lookup", AppName, AppObjects)
#: As APP_LOOKUP; an app that does not exist is made, deployed and without functions.
APP_ENSURE = Method("app.ensure", AppName, AppObjects, mutating=True)
APP_FIND = Method("app.find", AppSearch, AppInfo)
APP_LIST = Method("app.list", AppList, AppInfos)
APP_HISTORY = Method("app.history", AppRef, AppVersions)
APP_ROLLBACK = Method("app.rollback", AppRollback, AppPublished, mutating=True)
APP_STOP = Method("app.stop", AppStop, Empty, mutating=True)
APP_EVENTS = Method("app.events", AppEvents, AppEvent, Shape.SERVER_STREAM)
