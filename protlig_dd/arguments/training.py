"""The options of `protlig train` and `protlig check`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command, add_device

_TRAIN = """Starting the same command again goes on where it stopped; Ctrl-C and SIGTERM save first.
  protlig train structure/3di_tiny data.path=db                     a Foldseek database: proteins and their 3Di letters
  protlig train structure/kanzi_tiny data.path=train.fasta data.structure_path=train_kanzi.fasta
  protlig train kanzi/tiny data.path=pdbs/ --out runs/mine          an autoencoder of C-alpha traces
  protlig train my_pairs.yaml train.steps=1000 name=longer"""
_CHECK = """  protlig check structure/3di_tinyllama data.path=db --devices 8xH100
  protlig check my_pairs.yaml"""


def add_training(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `train` and `check`."""
    change = "Any setting can be changed with key.sub=value, for instance train.steps=100 model.hidden_size=128.\n"
    for name, text, epilog in (
        ("train", "train an experiment; with no CONFIG the embedded demo", _TRAIN),
        ("check", "validate a config; estimate parameters, FLOPs and memory", _CHECK),
    ):
        sub = add_command(commands, name, f"train.{name}", text, change + epilog)
        sub.add_argument(
            "config",
            nargs="?",
            default="dual_track/demo",
            help="a packaged config, such as structure/3di_tiny (an unknown name lists them all), or a YAML file",
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
