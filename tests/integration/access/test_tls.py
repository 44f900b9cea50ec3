"""TLS: with the server's own certificate, or with a proxy's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_server import AccessServer, access_server
from certificates import Authority

from intermodal.cli import doctor
from intermodal.control import http_port
from intermodal.control.login_limits import FREE_PER_TOKEN
from intermodal.control.tls import Certificate
from intermodal.settings import Settings
from modal._wire.messages.common import Empty
from modal._wire.messages.token import TOKEN_IDENTITY
from modal.exception import AuthError, ConnectionError, InvalidError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings_of(files: tuple[Path, Path]) -> dict[str, str]:
    return {"tls_certificate": str(files[0]), "tls_key": str(files[1])}


async def test_a_client_that_trusts_the_authority_is_served_over_tls(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with access_server(tmp_path, monkeypatch, **settings_of(authority.issue("good"))) as server:
        assert server.url.startswith("https://127.0.0.1:")
        token = await server.make_token()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with server.client(server.url, token=token) as client:
            assert (await client.unary(TOKEN_IDENTITY, Empty()))[0].kind == "token"


@pytest.mark.parametrize("problem", ["unknown authority", "wrong name", "expired"])
async def test_a_certificate_that_is_not_accepted_is_a_clear_error_at_once(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    trusted, files, text = authority.file, authority.issue("good"), "unable to get local issuer"
    if problem == "unknown authority":
        trusted = Authority(tmp_path, "other").file
    elif problem == "wrong name":
        files, text = authority.issue("elsewhere", address="10.0.0.1"), "IP address mismatch"
    else:
        files, text = authority.issue("old", valid_days=-1), "certificate has expired"
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with access_server(tmp_path, monkeypatch, **settings_of(files)) as server:
        with pytest.raises(ConnectionError, match=rf"its certificate is not accepted \(.*{text}.*SSL_CERT_FILE"):
            async with server.client(server.url, token=await server.make_token()):
                pass


async def test_the_wrong_scheme_says_which_one_is_right(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    async with access_server(tmp_path, monkeypatch, **settings_of(authority.issue("good"))) as server:
        with pytest.raises(ConnectionError, match="perhaps its address begins with https://"):
            async with server.client(server.url.replace("https", "http")):
                pass
    async with access_server(tmp_path / "plain", monkeypatch) as plain:
        with pytest.raises(ConnectionError, match="A server without TLS has an address that begins with http://"):
            async with plain.client(plain.url.replace("http", "https")):
                pass


@pytest.mark.parametrize("problem", ["missing", "one alone", "mixed up", "no PEM", "with a password"])
async def test_files_that_are_no_certificate_keep_the_server_from_starting(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    chosen, text = settings_of(authority.issue("good")), "are not a certificate chain in PEM and its key"
    if problem == "missing":
        chosen["tls_key"], text = f"{tmp_path}/none", "cannot be read: No such file"
    elif problem == "one alone":
        chosen["tls_key"], text = "", "needs both settings"
    elif problem == "mixed up":
        chosen["tls_key"] = str(authority.issue("other")[1])
    elif problem == "no PEM":
        Path(chosen["tls_certificate"]).write_text("hello")
    else:
        chosen = settings_of(authority.issue("locked", password=b"secret"))
    with pytest.raises(InvalidError, match=text):
        async with access_server(tmp_path, monkeypatch, **chosen):
            pass


async def test_renewed_files_are_used_and_broken_ones_are_not(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("good")
    certificate = Certificate(*files)

    async def served() -> int:
        """The serial number that a new connection sees."""
        listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=certificate.context)
        trusting = ssl.create_default_context(cafile=str(authority.file))
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=trusting)
        found = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        listener.close()
        return int(found, 16)

    first = await served()
    assert certificate.renew() is False
    authority.issue("good")
    assert certificate.renew() is True
    second = await served()
    assert second != first
    files[0].write_text("half a cert")
    assert certificate.renew() is False
    assert await served() == second
    files[0].unlink()
    assert certificate.renew() is False
    assert await served() == second


async def test_a_tls_handshake_that_does_not_arrive_is_cut_off(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_port, "REQUEST_TIMEOUT", 0.3)
    async with access_server(tmp_path, monkeypatch, **settings_of(authority.issue("good"))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        async with asyncio.timeout(20):
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(("days", "state"), [(100, "ok"), (5, "warn"), (-1, "fail"), (None, "fail")])
def test_the_doctor_looks_at_the_certificate(
    tmp_path: Path, authority: Authority, days: int | None, state: str
) -> None:
    chosen = settings_of(authority.issue("good", valid_days=days or 1))
    if days is None:
        chosen["tls_key"] = str(tmp_path / "none")
    [finding] = doctor._tls(Settings(data_dir=tmp_path, **chosen))
    assert (finding.name, finding.state.value) == ("TLS certificate", state)
    assert list(doctor._tls(Settings(data_dir=tmp_path))) == []


@contextlib.asynccontextmanager
async def tls_proxy(files: tuple[Path, Path], target: str, forwarded: str) -> AsyncIterator[str]:
    """A reverse proxy that ends TLS and says for whom it asks."""
    host, _, port = target.removeprefix("http://").rpartition(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        behind, ahead = await asyncio.open_connection(host, int(port))
        more = f"X-Forwarded-For: {forwarded}\r\nX-Forwarded-Proto: https\r\n\r\n"
        ahead.write(head[:-2] + more.encode())
        tasks.add(asyncio.create_task(pump(behind, writer)))
        await pump(reader, ahead)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    listener.close()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("trusted", ["127.0.0.0/8, ::1", ""])
async def test_a_proxy_is_believed_only_when_it_is_trusted(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted: str,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with access_server(tmp_path, monkeypatch, trusted_proxies=trusted) as server:
        token = await server.make_token()
        async with tls_proxy(authority.issue("good"), server.url, "198.51.100.1, 203.0.113.9") as url:
            async with server.client(url, token=token) as client:
                await client.unary(TOKEN_IDENTITY, Empty())
            for _ in range(FREE_PER_TOKEN):
                with pytest.raises(AuthError, match="is not accepted"):
                    async with server.client(url, token={**token, "secret": "as-x"}):
                        pass
            with pytest.raises(AuthError, match="Too many"):
                async with server.client(url, token=token):
                    pass
        assert ("connected from 203.0.113.9" in caplog.text) == bool(trusted)
        if trusted:  # who asks through it is somebody else than the proxy's own machine
            async with server.client(server.url, token=token) as direct:
                await direct.unary(TOKEN_IDENTITY, Empty())


@pytest.mark.parametrize("text", ["proxy.example", "*", "10.0.0.0/8 10.0.0.1", "10.0.0.1/8"])
async def test_trusted_proxies_must_be_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(InvalidError, match="trusted_proxies must be addresses or networks"):
        async with access_server(tmp_path, monkeypatch, trusted_proxies=text):
            pass


async def test_a_port_that_is_open_to_others_without_tls_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with access_server(tmp_path, monkeypatch, host="0.0.0.0"):
        assert "without TLS" in caplog.text


async def test_a_local_port_is_not(server: AccessServer, caplog: pytest.LogCaptureFixture) -> None:
    assert "without TLS" not in caplog.text
