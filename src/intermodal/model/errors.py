"""Failures of the machine, as opposed to failures of user code."""

from __future__ import annotations

from modal.exception import InternalFailure


class RuntimeFailure(InternalFailure):
    """The platform could not do what was asked. The text is one sentence for people: what, why, what to do."""


class MissingTool(RuntimeFailure):
    """A program or kernel feature that we need is not there."""

    def __init__(self, tool: str, package: str, purpose: str) -> None:
        super().__init__(
            f"{tool} is not installed; it is needed to {purpose}. Install it with: apt-get install {package}"
        )
        self.tool = tool
        self.package = package


class DiskFull(RuntimeFailure):
    """No space is left where containers or images are kept."""


class BadImage(RuntimeFailure):
    """The image, a mount or a setting of the function makes a start impossible; trying again cannot help."""


class NoSuchCommand(RuntimeFailure):
    """A command to be run in a container is not there, or cannot be executed. `code` is what shells exit with then."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
