"""Names that other projects use for our settings and options, so that users of DPLM keep their commands; the native name is logged.

Each translation is a line in a table here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from protlig_dd.checkpoints.pointers import list_checkpoints
from protlig_dd.errors import ConfigError

log = logging.getLogger(__name__)

_RENAMED = {
    "datamodule.max_tokens": "train.tokens_per_batch",
    "datamodule.data_dir": "data.path",
    "datamodule.max_len": "tracks.protein.max_length",
    "datamodule.num_workers": "train.prefetch",
    "trainer.devices": "train.devices",
    "trainer.accumulate_grad_batches": "train.accumulation",
    "trainer.max_steps": "train.steps",
    "trainer.gradient_clip_val": "train.optim.clip_norm",
    "trainer.val_check_interval": "train.validate_every",
    "train.lr": "train.optim.lr",
    "train.seed": "seed",
    "model.gradient_ckpt": "model.activation_checkpointing",
    "model.pretrained_model_name_or_path": "train.init_from",
    "eval.rmsd_interval": "evaluation.preview_every",
    "eval.rmsd_samples": "evaluation.preview_samples",
    "init_from": "train.init_from",
    "distributed": "train.distributed",
}
_PRECISIONS = dict.fromkeys(("16", "16-mixed", "fp16"), "fp16") | {"bf16": "bf16", "bf16-mixed": "bf16"}
_PRECISIONS |= dict.fromkeys(("32", "32-true", "fp32"), "fp32")
_SHORT = ("init_from", "distributed")
"""Our own short names, which are not logged."""

FLAGS = {
    "--model_name": "--model",
    "--sampling_strategy": "--strategy",
    "--unmasking_strategy": "--unmasking",
    "--max_iter": "--steps",
    "--num_seqs": "--num",
    "--seq_lens": "--length",
    "--saveto": "--out",
    "--batch_size": "--batch-size",
    "--input_fasta_path": "--protein",
    "--output_dir": "--out",
}
"""Options of other projects' commands, and our names for them."""


def native_overrides(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the config named by `experiment=`, or None, and all other overrides under their native names.

    Raises:
        ConfigError: for an unknown precision, or a checkpoint to go on from (`resumed_run` takes that out).
    """
    config, native = None, list[str]()
    for override in _of_one_length(overrides):
        key, _, value = override.partition("=")
        if key == "experiment":
            # dplm/dplm_150m is dplm/150m here, dplm2/dplm2_650m is dplm2/650m
            family, _, size = value.rpartition("/")
            config = f"{family}/{size.removeprefix(f'{family}_')}" if family else value
            _tell(override, f"CONFIG {config}")
            continue
        for new in _translated(key, value):
            native.append(new)
            if new != override and key not in _SHORT:
                _tell(override, new)
    return config, native


def _translated(key: str, value: str) -> list[str]:
    if key in _RENAMED:
        renamed = [f"{_RENAMED[key]}={value}"]
        return [*renamed, "train.batch_size=null"] if key == "datamodule.max_tokens" else renamed
    if key == "ckpt_path":
        if value in _NEWEST:
            return []
        raise ConfigError(f"ckpt_path={value}: means to go on with a training; that is done by protlig train in its run folder")
    if key == "trainer.limit_train_batches":
        if not value.isdigit() or value == "0":
            raise ConfigError(f"{key}: found '{value}', expected a number of batches; steps are counted here, not epochs: train.steps=...")
        return [f"train.steps={value}"]
    if key == "trainer.precision":
        if value not in _PRECISIONS:
            raise ConfigError(f"trainer.precision: found '{value}', expected one of {', '.join(_PRECISIONS)}")
        return [f"train.precision={_PRECISIONS[value]}"]
    if key == "trainer.fast_dev_run":
        return ["train.steps=1", "train.log_every=1"] if value.lower() == "true" else []
    return [f"{key}={value}"]


def _of_one_length(overrides: Sequence[str]) -> list[str]:
    """Return overrides of which one decides the number of steps, as in the original.

    `trainer.fast_dev_run` does before all others. `trainer.limit_train_batches` is the length of an epoch there: where the number of steps is
    given too, an epoch has no meaning.
    """
    keys = [override.partition("=")[0] for override in overrides]
    if not {"trainer.max_steps", "train.steps", "train.tokens"} & set(keys):
        kept = list(overrides)
    else:
        kept = [override for key, override in zip(keys, overrides, strict=True) if key != "trainer.limit_train_batches"]
        for override in set(overrides) - set(kept):
            _tell(override, "nothing: the number of steps is given, and there are no epochs here")
    return sorted(kept, key=lambda override: override.startswith("trainer.fast_dev_run="))


_NEWEST = ("", "null", "last")
"""Values of `ckpt_path=` that mean what `protlig train` does anyway: going on from the last checkpoint of its run folder."""


def resumed_run(overrides: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the run folder that `ckpt_path=` names, which means to go on with its training, or None; and all other overrides.

    Args:
        overrides: a run folder, its last checkpoint or the pointer to it may be named; a file of another framework has no state to go on from.

    Raises:
        ConfigError: for anything else, with the way to start from weights.
    """
    named = [override.partition("=")[2] for override in overrides if override.startswith("ckpt_path=")]
    others = [override for override in overrides if not override.startswith("ckpt_path=")]
    if not named or named[-1] in _NEWEST:
        return None, others
    path = Path(named[-1])
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    found = list_checkpoints(folder / "checkpoints")
    if not found or (path != folder and path.name not in (found[-1].name, "last.json")):
        wanted = f"its last one, {found[-1].name}" if found else "a run folder of protlig train"
        raise ConfigError(
            f"ckpt_path={path}: means to go on with a training at its step and with its optimiser; expected {wanted}; to start at step 0 with "
            f"weights only, write train.init_from={folder if found else path}"
        )
    _tell(f"ckpt_path={path}", f"going on in {folder}")
    return folder, others


def native_flags(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with other projects' flags replaced by ours."""
    native = []
    for argument in arguments:
        flag, sep, value = argument.partition("=")
        if flag in FLAGS:
            _tell(flag, FLAGS[flag])
            argument = f"{FLAGS[flag]}{sep}{value}"
        native.append(argument)
    return native


_told: set[str] = set()


def _tell(found: str, native: str) -> None:
    """Log the native name of a setting or option, once."""
    if found not in _told:
        _told.add(found)
        log.info("%s is understood as %s", found, native)
