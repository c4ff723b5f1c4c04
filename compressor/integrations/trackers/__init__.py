"""Trackers of experiments, by name. New ones register under ``compressor.trackers``: a class each, see ``base``."""

from compressor.plugins.registry import Registry

TRACKERS = Registry(
    "tracker",
    {
        "mlflow": "compressor.integrations.trackers.mlflow:MLflow",
        "tensorboard": "compressor.integrations.trackers.tensorboard:TensorBoard",
        "trackio": "compressor.integrations.trackers.trackio:Trackio",
        "wandb": "compressor.integrations.trackers.wandb:WandB",
    },
    group="compressor.trackers",
)

__all__ = ["TRACKERS"]
