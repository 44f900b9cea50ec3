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

    app_id: str
    app_page_url: str
    app_logs_url: str
    warnings: list[str]


async def _deploy_app(
    app: App,
    name: Optional[str] = None,
    namespace: Any = None,
    client: Optional[Client] = None,
    environment_name: Optional[str] = None,
    tag: str = "",
) -> DeployResult:
    """Deploy an app, so that it outlives this process (not available yet)."""
    not_built_yet("modal.runner.deploy_app", "Use `with app.run():` or `modal run --detach`.")


async def _interactive_shell(
    _app: App, cmds: list[str], environment_name: str = "", pty: bool = True, **kwargs: Any
) -> None:
    """Open a shell in a container with the app's image (not available yet)."""
    not_built_yet("modal.runner.interactive_shell")


deploy_app = blocking(_deploy_app)
interactive_shell = blocking(_interactive_shell)
