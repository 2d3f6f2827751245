#!/usr/bin/env python3
"""Check the login to Weights & Biases (wandb) and show how a run would be logged: entity, project, mode.

Needs only Python, sends at most one request to the server, waits a few seconds at most, and writes nothing except with --login and
after confirmation. Exit status: 0 if a run can be logged in its mode, 1 with advice if not, 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import netrc
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_PROJECT = "protlig_dd"
DEFAULT_SERVER = "https://api.wandb.ai"
MODES = ("online", "offline", "disabled")
WITHOUT = "runs also work without wandb: with no login they log to JSONL and TensorBoard"
EPILOG = f"""\
environment variables
  WANDB_MODE       online (default), offline (files now, `wandb sync` later), or disabled
  WANDB_API_KEY    the key; without it, the entry of the server in ~/.netrc (or the file named by NETRC), where `wandb login` stores it
  WANDB_ENTITY     the account or team that owns the runs; without it, the login's default
  WANDB_PROJECT    the project; without it, {DEFAULT_PROJECT}
  WANDB_BASE_URL   a self-hosted server; without it, {DEFAULT_SERVER}

examples
  ./setup_wandb.py                         # check the login
  ./setup_wandb.py --login                 # log in (asks before it writes the key to ~/.netrc)
  WANDB_MODE=offline ./run_train.sh        # on a node without a network; afterwards: wandb sync wandb/offline-run-*

{WITHOUT}.
"""


class NotReady(Exception):
    """A run could not be logged in its mode; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The owner of the key, as the server reports it."""

    username: str
    entity: str


def read_mode() -> str:
    """Return the mode that a run would have.

    Raises:
        NotReady: for a mode that wandb does not know.
    """
    mode = os.environ.get("WANDB_MODE", "online").strip().lower() or "online"
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode not in MODES:
        raise NotReady(f"WANDB_MODE: found '{mode}', expected one of {', '.join(MODES)}; set it to one of them, or unset it")
    return mode


def netrc_file() -> Path:
    """Return the file in which `wandb login` stores the key."""
    if os.environ.get("NETRC"):
        return Path(os.environ["NETRC"]).expanduser()
    home = Path.home()
    return home / "_netrc" if not (home / ".netrc").exists() and (home / "_netrc").exists() else home / ".netrc"


def read_key(server: str) -> tuple[str, str]:
    """Return the key and where it was found.

    Raises:
        NotReady: if there is no key, or it has the wrong form.
    """
    key, source = os.environ.get("WANDB_API_KEY", "").strip(), "WANDB_API_KEY"
    if not key:
        path = netrc_file()
        host = urlsplit(server).netloc
        try:
            entry = netrc.netrc(path).authenticators(host)
        except FileNotFoundError:
            entry = None
        except (netrc.NetrcParseError, OSError) as error:
            raise NotReady(f"{path}: not readable: {error}; mend the file, or set WANDB_API_KEY") from error
        if entry is None or not entry[2]:
            raise NotReady(
                f"no login: WANDB_API_KEY is not set and {path} has no entry for {host}; run ./setup_wandb.py --login, "
                f"or set WANDB_MODE=offline; {WITHOUT}"
            )
        key, source = entry[2], str(path)
    secret = key.split("-", 1)[-1]
    if len(secret) < 40 or not re.fullmatch(r"[\w.-]+", secret):
        raise NotReady(
            f"{source}: found a key of {len(secret)} characters, expected at least 40 letters, digits and underscores; "
            f"copy it again from {page_of_the_key(server)}"
        )
    return key, source


def page_of_the_key(server: str) -> str:
    """Return the address of the page that shows a user's key."""
    return "https://wandb.ai/authorize" if server == DEFAULT_SERVER else f"{server}/authorize"


def ask_server(server: str, key: str, timeout_s: float) -> Account:
    """Return the owner of a key, from one request to the server.

    The request runs in a thread, because the timeout of a socket does not cover the look-up of the server's name.

    Raises:
        NotReady: if the server cannot be reached in time, refuses the key, or sends any other answer.
    """
    outcome: list[Account | NotReady] = []

    def ask() -> None:
        try:
            outcome.append(_request_account(server, key, timeout_s))
        except NotReady as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise NotReady(_unreachable(server, f"no answer within {timeout_s:g} s"))
    if isinstance(outcome[0], NotReady):
        raise outcome[0]
    return outcome[0]


def _unreachable(server: str, reason: object) -> str:
    return f"{server} cannot be reached ({reason}); set WANDB_MODE=offline and upload later with `wandb sync`, or check the network"


def _request_account(server: str, key: str, timeout_s: float) -> Account:
    body = json.dumps({"query": "query Viewer { viewer { username entity } }"}).encode()
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    try:
        request = urllib.request.Request(f"{server}/graphql", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            viewer = json.load(answer)["data"]["viewer"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise NotReady(
                f"{server} refuses the key (HTTP {error.code}); copy it again from {page_of_the_key(server)} "
                "and run ./setup_wandb.py --login"
            ) from error
        raise NotReady(_unreachable(server, f"HTTP {error.code}")) from error
    except OSError as error:
        raise NotReady(_unreachable(server, getattr(error, "reason", error))) from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotReady(f"{server} does not answer like a wandb server ({error!r}); check WANDB_BASE_URL") from error
    if not viewer:
        raise NotReady(f"{server} does not know the key; copy it again from {page_of_the_key(server)}")
    return Account(username=viewer["username"], entity=viewer["entity"])


def log_in() -> None:
    """Run `wandb login`, which asks for the key and stores it, after confirmation.

    Raises:
        NotReady: if there is no terminal, the answer is no, or the login fails.
    """
    if not sys.stdin.isatty():
        raise NotReady("--login asks questions and there is no terminal; set WANDB_API_KEY instead")
    try:
        answer = input(f"Write the key to {netrc_file()}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise NotReady("nothing was written; set WANDB_API_KEY for this shell instead")
    if subprocess.run([sys.executable, "-m", "wandb", "login", "--relogin"], check=False).returncode != 0:
        raise NotReady("`wandb login` failed (see above)")


def check(timeout_s: float, *, login: bool) -> None:
    """Print how a run would be logged, one line for each check.

    Raises:
        NotReady: at the first check that fails.
    """
    mode = read_mode()
    server = (os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER).rstrip("/")
    print(f"mode     {mode}")
    print(f"project  {os.environ.get('WANDB_PROJECT') or DEFAULT_PROJECT}")
    entity = os.environ.get("WANDB_ENTITY")
    if mode != "online":
        print(f"entity   {entity or 'decided at upload (wandb sync)' if mode == 'offline' else 'none: nothing is logged'}")
    if mode != "disabled" and importlib.util.find_spec("wandb") is None:
        raise NotReady(f"the package wandb is not installed in {sys.executable}; install it with: pip install 'protlig_dd[train]'")
    if login:
        log_in()
    if mode == "online":
        print(f"server   {server}")
        key, source = read_key(server)
        print(f"key      found in {source}")
        account = ask_server(server, key, timeout_s)
        print(f"user     {account.username}")
        print(f"entity   {entity or account.entity}")


def main() -> int:
    """Run the check and return the exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--login", action="store_true", help="log in with `wandb login`; asks before it writes anything")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="time to wait for the server (default 5)")
    arguments = parser.parse_args()
    try:
        check(arguments.timeout, login=arguments.login)
    except NotReady as advice:
        print(f"not ready: {advice}", file=sys.stderr)
        return 1
    print("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
