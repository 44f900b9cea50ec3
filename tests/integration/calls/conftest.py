from __future__ import annotations

import sys

import pytest
from real_server import RealServer

import modal

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def app(real_server: RealServer) -> modal.App:
    """An app to which a test adds serialized functions."""
    return modal.App("calls-test", image=modal.Image.debian_slim(python_version=PYTHON))
