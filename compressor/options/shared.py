"""What arguments of Python and options of the command line take alike."""

from compressor.options.kinds import Number, OneOf, Whole

EPOCHS = Whole(0, 1_000_000)
BATCH_SIZE = Whole(1)
ACCUMULATE = Whole(1, 65536)
CLIP_NORM = Number(above=0)
LR = Number(above=0)
OPTIMIZER = OneOf(("sgd", "adamw"))
LRS = {"sgd": 0.05, "adamw": 0.001}
"""Learning rates of training and fine-tuning where none is given, by optimizer."""
WEIGHT_DECAYS = {"sgd": 5e-4, "adamw": 0.01}
"""Likewise; AdamW's is applied apart from the gradient, and times a rate that is far smaller."""
DATA_WORKERS = Whole(0, 1024)
DISTILL = Number(least=0, most=1)
ROUND_TO = Whole(1)
SEED = Whole(0, 2**63 - 1)
THREADS = Whole(1, 4096)
NUM_CLASSES = Whole(1, 10_000_000)
SECONDS = Number(above=0)
BENCH_SECONDS = Number(least=0)
OPSET = Whole(1, 1000)
