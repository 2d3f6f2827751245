"""Names that other projects use for our settings and options, so that users of DPLM keep their commands; the native name is logged.

Each translation is a line in a table here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

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
    "trainer.limit_train_batches": "train.steps",
    "trainer.gradient_clip_val": "train.optim.clip_norm",
    "trainer.val_check_interval": "train.validate_every",
    "train.lr": "train.optim.lr",
    "train.seed": "seed",
    "model.gradient_ckpt": "model.activation_checkpointing",
    "model.pretrained_model_name_or_path": "train.init_from",
    "ckpt_path": "train.init_from",
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
        ConfigError: for an unknown precision.
    """
    config, native = None, list[str]()
    for override in overrides:
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
    if key == "trainer.precision":
        if value not in _PRECISIONS:
            raise ConfigError(f"trainer.precision: found '{value}', expected one of {', '.join(_PRECISIONS)}")
        return [f"train.precision={_PRECISIONS[value]}"]
    if key == "trainer.fast_dev_run":
        return ["train.steps=1", "train.log_every=1"] if value.lower() == "true" else []
    return [f"{key}={value}"]


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
