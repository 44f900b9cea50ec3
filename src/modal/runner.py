"""Deploying apps and opening shells from programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from ._later import not_built_yet
from ._sync import blocking

if TYPE_CHECKING:
    from ._objects.app import App
    from ._objects.client import Client

__all__ = ["DeployResult", "deploy_app", "interactive_shell"]


@dataclass
class DeployResult:
    """What became of a deployment."""

    app_id: str  #: the same for all versions
    app_page_url: str  #: where a browser shows the app; "" when the server has no such page
    app_logs_url: str  #: the same for its output
    warnings: list[str]  #: sentences for people


async def _deploy_app(
    app: App,
    name: Optional[str] = None,
    namespace: Any = None,
    client: Optional[Client] = None,
    environment_name: Optional[str] = None,
    tag: str = "",
) -> DeployResult:
    """Deploy an app, so that it outlives this process and its functions can be called from others.

    Args:
        app: the app. When one is deployed under the name, this becomes its next version.
        name: the name to deploy it as; default: the app's own.
        namespace: no effect.
        client: the connection to use; default: that of the configuration.
        environment_name: the environment; default: that of the configuration.
        tag: what to call this version: 1 to 64 letters, digits, dashes, dots and underscores.

    Raises:
        InvalidError: there is no name, this is a container, the app runs, or a function asks for what cannot be.
        RemoteError: an image cannot be built. What was deployed before stays in force.
    """
    from ._deploying import deploy

    deployed = await deploy(app, name, client, environment_name, tag)
    return DeployResult(deployed.app_id, deployed.page_url, deployed.page_url and f"{deployed.page_url}/logs", [])


async def _interactive_shell(
    _app: App, cmds: list[str], environment_name: str = "", pty: bool = True, **kwargs: Any
) -> None:
    """Open a shell in a container with the app's image (not available yet)."""
    not_built_yet("modal.runner.interactive_shell")


deploy_app = blocking(_deploy_app)
interactive_shell = blocking(_interactive_shell)
