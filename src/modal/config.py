"""Configuration: environment variables over the profile in `.modal.toml` over defaults.

`MODAL_CONFIG_PATH` names the file (default `~/.modal.toml`), `MODAL_PROFILE` the section in it (default: the one marked
``active = true``, else "default"). Every setting has the environment variable `MODAL_<NAME IN UPPER CASE>`.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, NamedTuple, Optional

from . import _config_file
from .exception import InvalidError

__all__ = [
    "Config",
    "config",
    "config_profiles",
    "config_set_active_profile",
    "config_set_value",
    "config_set_values",
    "current_profile",
]

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in _TRUE + _FALSE:
        return str(value).lower() in _TRUE
    raise ValueError("it must be true or false")


def _seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise ValueError("it must be a number of seconds of at least 0")
    return number


def _level(value: Any) -> str:
    if str(value).upper() not in _LEVELS:
        raise ValueError(f"it must be one of {', '.join(_LEVELS)}")
    return str(value).upper()


def _server_url(value: Any) -> str:
    text = _text(value).rstrip("/")
    if text and not re.match(r"(https?|unix)://.", text):
        raise ValueError("it must begin with http://, https:// or unix://")
    return text


class _Setting(NamedTuple):
    default: Any
    convert: Callable[[Any], Any]


_SETTINGS: dict[str, _Setting] = {
    "loglevel": _Setting("WARNING", _level),
    "logs_timeout": _Setting(10.0, _seconds),
    "reconnect_timeout": _Setting(60.0, _seconds),
    "automount": _Setting(True, _boolean),
    "force_build": _Setting(False, _boolean),
    "traceback": _Setting(False, _boolean),
    "token_id": _Setting(None, _text),
    "token_secret": _Setting(None, _text),
    "server_url": _Setting(None, _server_url),
    "environment": _Setting("main", _text),
}


def current_profile() -> str:
    """The name of the profile in force."""
    named = os.environ.get("MODAL_PROFILE")
    if named:
        return named
    return next((name for name, section in _config_file.read().items() if section.get("active") is True), "default")


def config_profiles() -> list[str]:
    """List the profiles in the configuration file."""
    return list(_config_file.read())


def config_set_active_profile(env: str) -> None:
    """Make `env` the active profile, in the configuration file.

    Raises:
        InvalidError: there is no such profile.
    """
    with _config_file.edited() as document:
        if env not in document:
            raise InvalidError(f"There is no profile {env!r} in {_config_file.path()}.")
        _activate(document, env)


def _activate(document: Any, profile: str) -> None:
    for section in document.values():
        section.pop("active", None)
    document[profile]["active"] = True


def config_set_value(key: str, value: Any, profile: Optional[str] = None) -> None:
    """Write one setting into a profile of the configuration file, the current one by default; None removes it.

    Raises:
        InvalidError: no such setting, or a value that does not fit it.
    """
    config_set_values({key: value}, profile)


def config_set_values(values: dict[str, Any], profile: Optional[str] = None, activate: bool = False) -> None:
    """Write settings into a profile of the configuration file, in one step; None removes one.

    Args:
        profile: made when it is not there; by default the current one.
        activate: also make it the active one.

    Raises:
        InvalidError: no such setting, or a value that does not fit it.
    """
    checked = {key: None if value is None else _convert(key, value, repr(key)) for key, value in values.items()}
    profile = profile or current_profile()
    with _config_file.edited() as document:
        section = _config_file.section_of(document, profile)
        for key, value in checked.items():
            if value is None:
                section.pop(key, None)
            else:
                section[key] = value
        if activate:
            _activate(document, profile)


def _setting(key: str) -> _Setting:
    if key not in _SETTINGS:
        raise InvalidError(f"There is no setting {key!r}; there are {', '.join(_SETTINGS)}.")
    return _SETTINGS[key]


def _convert(key: str, value: Any, where: str) -> Any:
    try:
        return _setting(key).convert(value)
    except ValueError as error:
        raise InvalidError(f"{where} is set to {value!r}, but {error}.") from None


class Config:
    """The configuration of this process. Use the object `modal.config.config`."""

    def __init__(self) -> None:
        """Nothing is read until a value is asked for."""

    def get(self, key: str, profile: Optional[str] = None, use_env: bool = True) -> Any:
        """Look up a setting: environment variable, then configuration file, then default.

        Args:
            key: name of the setting, in lower case.
            profile: section of the file; default: the current one.
            use_env: look at environment variables.

        Raises:
            InvalidError: no such setting, a value that does not fit it, or a file that cannot be read.
        """
        setting = _setting(key)
        variable = f"MODAL_{key.upper()}"
        if use_env and os.environ.get(variable):
            return _convert(key, os.environ[variable], variable)
        section = _config_file.read().get(profile or current_profile(), {})
        if key in section:
            return _convert(key, section[key], f"{key!r} in {_config_file.path()}")
        return setting.default

    def override_locally(self, key: str, value: str) -> None:
        """Override a setting in this process and its children, by its environment variable. No file is written."""
        _convert(key, value, key)
        os.environ[f"MODAL_{key.upper()}"] = str(value)

    def to_dict(self) -> dict[str, Any]:
        """Every setting with the value in force."""
        return {key: self.get(key) for key in _SETTINGS}

    def __repr__(self) -> str:
        secret = {"token_secret"}
        return repr({key: "***" if key in secret and value else value for key, value in self.to_dict().items()})


config = Config()
