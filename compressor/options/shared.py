"""What arguments of Python and options of the command line take alike."""

from compressor.options.kinds import Number, OneOf, Whole

EPOCHS = Whole(0, 1_000_000)
BATCH_SIZE = Whole(1)
LR = Number(above=0)
OPTIMIZER = OneOf(("sgd", "adamw"))
LRS = {"sgd": 0.05, "adamw": 0.001}
"""Learning rates of training and fine-tuning where none is given, by optimizer."""
OF_ADAMW = 5
"""Times that a rate of SGD is AdamW's, where a network that computes weights is trained with the latter in any case."""
WEIGHT_DECAYS = {"sgd": 5e-4, "adamw": 0.01}
"""Likewise; AdamW's is applied apart from the gradient, and times a rate that is far smaller."""
SEED = Whole(0, 2**63 - 1)
THREADS = Whole(1, 4096)
SECONDS = Number(above=0)
OPSET = Whole(1, 1000)
