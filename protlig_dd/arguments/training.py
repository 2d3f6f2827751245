"""The options of `protlig train` and `protlig check`."""

from __future__ import annotations

from protlig_dd.arguments.common import add_command, add_device


def add_training(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `train` and `check`."""
    epilog = (
        "Any setting can be changed with key.sub=value, for instance train.steps=100 model.hidden_size=128.\n"
        "Starting the same command again goes on where it stopped; Ctrl-C and SIGTERM save first."
    )
    for name, text in (
        ("train", "train an experiment; with no CONFIG the embedded demo"),
        ("check", "validate a config; estimate parameters, FLOPs and memory"),
    ):
        sub = add_command(commands, name, f"training.{name}", text, epilog)
        sub.add_argument(
            "config", nargs="?", default="dual_track/demo", help="a packaged config (see below) or a YAML file"
        )
        sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings to change")
        add_device(sub)
        if name == "check":
            sub.add_argument(
                "--devices",
                default="",
                metavar="8xH100",
                help="say what it needs on these: memory by ZeRO stage, hours",
            )
        if name == "train":
            sub.add_argument("--out", default="", help="the run folder (default runs/NAME)")
            sub.add_argument(
                "--resume", default="", choices=["", "auto", "never", "last-good"], help="what to do with a run folder"
            )
