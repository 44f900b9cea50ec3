"""The Debian mirror of this machine, and images' apt sources pointed at it while they are built."""

from __future__ import annotations

from pathlib import Path

#: The archive and the security archive.
DEFAULT_MIRROR = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")

#: Files of an image that may name a mirror.
SOURCES_FILES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")


def host_mirror(sources: str) -> tuple[str, str]:
    """The archive and security archive that apt sources name; Debian's own where they name none."""
    main, security = DEFAULT_MIRROR
    found_main = found_security = ""
    for line in sources.splitlines():
        words = line.split()
        if not words or words[0] not in ("deb", "URIs:"):
            continue
        urls = [word.rstrip("/") for word in words[1:] if "://" in word]
        for url in urls:
            if url.endswith("/debian-security"):
                found_security = found_security or url
            elif url.endswith("/debian"):
                found_main = found_main or url
    return found_main or main, found_security or security


def read_sources(apt: Path = Path("/etc/apt")) -> str:
    """The text of this machine's apt sources."""
    paths = [
        apt / "sources.list",
        *sorted(apt.glob("sources.list.d/*.list")),
        *sorted(apt.glob("sources.list.d/*.sources")),
    ]
    return "\n".join(path.read_text(errors="replace") for path in paths if path.is_file())


def on_mirror(sources: str, mirror: tuple[str, str]) -> str:
    """`sources` of an image with Debian's own archives replaced by `mirror`."""
    main, security = DEFAULT_MIRROR
    placeholder = "\0"
    return sources.replace(security, placeholder).replace(main, mirror[0]).replace(placeholder, mirror[1])
