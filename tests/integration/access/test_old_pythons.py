"""The client on the oldest Python it supports: WebSocket, TLS, and the commands around tokens."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from access_server import access_server
from certificates import Authority

ROOT = Path(__file__).parents[3]
OLDEST = "3.9"
#: What the client needs there; pyproject.toml has the versions.
PACKAGES = ("click", "cloudpickle", "rich", "tomli", "tomlkit", "typing-extensions", "websockets")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of that version with the client's packages."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{OLDEST}.*/bin/python{OLDEST}"))
    if not found:
        pytest.skip(f"there is no Python {OLDEST} on this machine")
    text = (ROOT / "pyproject.toml").read_text()
    wanted = [line.strip(' ",').partition(";")[0] for line in text.splitlines() if line.startswith('    "')]
    chosen = [one for one in wanted if one.startswith(PACKAGES)]
    assert len(chosen) >= len(PACKAGES)
    where = tmp_path_factory.mktemp("python")
    uv = str(ROOT / ".venv/bin/uv")
    subprocess.run([uv, "venv", "-q", "--python", str(found[-1]), str(where)], check=True, timeout=120)
    install = [uv, "pip", "install", "-q", "--python", str(where / "bin/python"), *set(chosen)]
    subprocess.run(install, check=True, timeout=300)
    return str(where / "bin/python")


async def test_it_connects_over_tls_and_stores_tokens(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("good")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODAL_CONFIG_PATH": str(tmp_path / "modal.toml"),
        "SSL_CERT_FILE": str(authority.file),
        "MODAL_LOGLEVEL": "DEBUG",
    }

    async def run(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, [python, *args], env={**environ, **more}, capture_output=True, text=True, timeout=60
        )

    (tmp_path / "modal.toml").write_text("[default] # mine\n")
    async with access_server(tmp_path, monkeypatch, tls_certificate=str(certificate), tls_key=str(key)) as server:
        token = await server.make_token()
        chosen = ["--token-id", token["id"], "--token-secret", token["secret"], "--server-url", server.url]
        done = await run("-m", "modal.cli.main", "token", "set", *chosen)
        assert done.returncode == 0, done.stderr
        assert "accepts the token: a member (member)" in done.stdout
        assert (tmp_path / "modal.toml").read_text().startswith("[default] # mine\ntoken_id")
        listed = await run("-m", "modal.cli.main", "environment", "list", "--json")
        assert (listed.returncode, '"main"' in listed.stdout) == (0, True), listed.stderr
        assert f"connected to {server.url}" in listed.stderr
        code = "import modal; modal.Client.from_credentials('ak-x', 'as-x').hello()"
        refused = await run("-c", code)
        assert "AuthError: The token ak-x is not accepted" in refused.stderr
        distrusting = await run("-c", code, SSL_CERT_FILE=str(Authority(tmp_path, "other").file))
        assert "ConnectionError" in distrusting.stderr
        assert "its certificate is not accepted" in distrusting.stderr
