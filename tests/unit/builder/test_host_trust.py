"""What builds inherit from the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import tomllib

from intermodal.builder.apt_mirror import DEFAULT_MIRROR, host_mirror, on_mirror, read_sources
from intermodal.builder.host_trust import (
    HostTrust,
    apt_settings,
    merge_pip,
    pip_conf,
    remote_urls,
    shell_exports,
    uv_toml,
)

LISTING = """:env:.find-links='/opt/wheels'
global.extra-index-url='https://a/simple file:///opt/b\\nhttps://c/simple'
:env:.index-url='https://env/simple'
global.index-url='https://file/simple'
global.constraint='/etc/constraints.txt'
global.trusted-host='a c'
:env:.default-timeout='180'
freeze.all='x'
nonsense""".splitlines()


def test_the_environment_overrides_files_and_local_paths_are_dropped() -> None:
    assert merge_pip(LISTING) == {
        "extra-index-url": "https://a/simple https://c/simple",
        "index-url": "https://env/simple",
        "trusted-host": "a c",
        "timeout": "180",
    }


def test_pip_and_uv_get_the_same_settings() -> None:
    settings = merge_pip(LISTING)
    assert "index-url = https://env/simple\n" in pip_conf(settings)
    assert "extra-index-url = https://a/simple\n    https://c/simple\n" in pip_conf(settings)
    assert tomllib.loads(uv_toml(settings)) == {
        "index-url": "https://env/simple",
        "extra-index-url": ["https://a/simple", "https://c/simple"],
        "allow-insecure-host": ["a", "c"],
    }


def test_local_places_are_no_use_in_a_build() -> None:
    assert remote_urls("/opt/x ./y file:///z https://h/i git+ssh://j") == "https://h/i git+ssh://j"


def test_a_shell_reads_back_what_was_written(tmp_path: Path) -> None:
    values = {"A": 'it\'s $HOME `x` "q"\nline', "_B2": "", "NOT-A-NAME": "x", "C;touch /x": "y"}
    file = tmp_path / "environment.sh"
    file.write_text(shell_exports(values))
    script = f'. {file}; printf "%s|%s" "$A" "$_B2"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == values["A"] + "|"
    assert done.stderr == ""


def test_the_files_point_at_their_place_in_the_build(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    handed = tmp_path / "handed"
    handed.mkdir()
    trust = HostTrust(ca_bundle=bundle, proxies={"http_proxy": "http://p"})
    trust.write(handed)
    assert trust.environment()["SSL_CERT_FILE"] == "/run/intermodal/ca.crt"
    assert trust.environment()["http_proxy"] == "http://p"
    assert (handed / "ca.crt").read_text() == "certificates"
    assert {path.stat().st_mode & 0o777 for path in handed.iterdir()} == {0o444}


def test_apt_settings_are_about_reaching_archives() -> None:
    dump = [
        'APT::Architecture "amd64";',
        'Acquire::http "";',
        'Acquire::http::Proxy "http://p:1";',
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/x";',
        'Acquire::Check-Valid-Until "false";',
    ]
    assert apt_settings(dump) == [dump[2], dump[4]]


def test_the_mirror_is_found_in_both_formats_of_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb [signed-by=/k] http://m/debian bookworm main\n")
    directory = tmp_path / "sources.list.d"
    directory.mkdir()
    (directory / "x.sources").write_text("Types: deb\nURIs: http://m/debian-security/\nSuites: s\n")
    (directory / "y.list").write_text("deb https://other/repo nodistro main\n")
    mirror = host_mirror(read_sources(tmp_path))
    assert mirror == ("http://m/debian", "http://m/debian-security")
    assert host_mirror("") == DEFAULT_MIRROR
    text = f"URIs: {DEFAULT_MIRROR[0]}\nURIs: {DEFAULT_MIRROR[1]}\n"
    assert on_mirror(text, mirror) == "URIs: http://m/debian\nURIs: http://m/debian-security\n"
    assert on_mirror(text, DEFAULT_MIRROR) == text
