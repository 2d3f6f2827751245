"""The configuration in a published file of Kanzi, for a shape."""

from __future__ import annotations

from typing import Any

from protlig_dd.kanzi.model import KanziSettings


def published_values(settings: KanziSettings) -> dict[str, Any]:
    """Return the `model_cfg` of a published file with this shape, without the entries that it leaves at their defaults."""
    assert settings.encoder_heads == settings.decoder_heads, settings
    return {
        "n_channels_encoder": settings.encoder_size,
        "n_channels_decoder": settings.decoder_size,
        "n_layers_encoder": settings.encoder_blocks,
        "n_layers_decoder": settings.decoder_blocks,
        "n_channels_pair": settings.pair_size,
        "n_heads": settings.encoder_heads,
        "mlp_factor": round(settings.mlp_ratio),
        "use_qknorm": settings.normed_queries,
        "window_size": settings.window,
        "levels": settings.levels,
    }
