"""What tests of several processes share."""

from __future__ import annotations

import socket

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_deepspeed(strategy: str) -> None:
    if strategy == "zero3":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed: pip install 'protlig_dd[deepspeed]'")
