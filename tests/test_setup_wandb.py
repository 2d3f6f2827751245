"""setup_wandb.py against a made-up environment and a server on this machine; nothing here reaches a network."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KEY = "0123456789abcdef" * 3

Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs setup_wandb.py with an empty home and only the given variables."""

    def call(*arguments: str, python: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, str(ROOT / "setup_wandb.py"), *arguments],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "no_proxy": "*", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return call


@pytest.fixture
def server() -> Iterator[str]:
    """A server that knows one key: the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import base64

            self.rfile.read(int(self.headers["Content-Length"]))
            known = self.headers["Authorization"] == "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
            body = json.dumps({"data": {"viewer": {"username": "ada", "entity": "lab"}}}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_good_key_prints_who_and_where(check: Check, server: str, tmp_path: Path) -> None:
    done = check(WANDB_API_KEY=KEY, WANDB_BASE_URL=server, WANDB_PROJECT="screen")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines == [
        ["mode", "online"],
        ["project", "screen"],
        ["server", server],
        ["key", "found in WANDB_API_KEY"],
        ["user", "ada"],
        ["entity", "lab"],
        ["ready"],
    ]
    assert KEY not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [], "it writes nothing"


def test_the_key_of_a_netrc_file_is_found_and_the_entity_is_the_user_s_choice(check: Check, server: str, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {server.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    done = check(WANDB_BASE_URL=server, WANDB_ENTITY="team")
    assert done.returncode == 0, done.stderr
    assert f"found in {netrc}" in done.stdout
    assert "entity   team" in done.stdout


@pytest.mark.parametrize(("mode", "entity"), [("offline", "decided at upload"), ("disabled", "nothing is logged")])
def test_without_a_network_the_other_modes_are_ready(check: Check, mode: str, entity: str) -> None:
    done = check(WANDB_MODE=mode, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert f"mode     {mode}" in done.stdout
    assert "project  protlig_dd" in done.stdout
    assert entity in done.stdout


def test_a_missing_key_gives_advice(check: Check) -> None:
    done = check()
    assert done.returncode == 1
    assert "WANDB_API_KEY is not set" in done.stderr
    assert "./setup_wandb.py --login" in done.stderr
    assert "WANDB_MODE=offline" in done.stderr
    assert "JSONL and TensorBoard" in done.stderr
    assert "ready" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WANDB_MODE": "onlin"}, "WANDB_MODE: found 'onlin', expected one of online, offline, disabled"),
        ({"WANDB_API_KEY": "short"}, "WANDB_API_KEY: found a key of 5 characters, expected at least 40"),
        ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_is_wrong_is_named(check: Check, variables: dict[str, str], message: str) -> None:
    done = check(**variables)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_key_is_told_from_an_absent_network(check: Check, server: str) -> None:
    done = check(WANDB_API_KEY="x" * 40, WANDB_BASE_URL=server)
    assert done.returncode == 1
    assert "refuses the key (HTTP 401)" in done.stderr
    assert f"{server}/authorize" in done.stderr


def test_a_broken_netrc_file_is_named(check: Check, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machin api.wandb.ai\n")
    done = check()
    assert done.returncode == 1
    assert f"{tmp_path / '.netrc'}: not readable" in done.stderr


def test_a_server_that_never_answers_holds_nobody_up(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        done = check("--timeout", "0.3", WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert time.monotonic() - began < 10


def test_a_missing_package_is_named(check: Check) -> None:
    done = check(python=("-S",), WANDB_MODE="offline")
    assert done.returncode == 1
    assert "pip install 'protlig_dd[train]'" in done.stderr


def test_login_without_a_terminal_writes_nothing(check: Check, tmp_path: Path) -> None:
    done = check("--login")
    assert done.returncode == 1
    assert "there is no terminal; set WANDB_API_KEY" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(check: Check) -> None:
    done = check("--help")
    assert done.returncode == 0
    for word in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT", "wandb sync", "--login", "--timeout"):
        assert word in done.stdout
