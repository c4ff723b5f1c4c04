"""Where a program calls a function: the line that a message can name."""

from __future__ import annotations

import os
import sys

import torch

# Functions whose sizes a program may spell out.
TAKE_SIZES = {"view", "reshape", "unflatten", "resize", "expand", "broadcast_to", "repeat", "split", "narrow", "pad",
               "split_with_sizes", "tensor_split", "__getitem__", "__setitem__", "layer_norm", "rms_norm",
               "group_norm", "conv1d", "conv2d", "conv3d", "channel_shuffle", "pixel_shuffle"}  # fmt: skip
_OURS = os.path.dirname(os.path.dirname(__file__))  # the whole of ``compressor.graph``
_NOT_THE_USERS = tuple(folder + os.sep for folder in (os.path.dirname(torch.__file__), _OURS))


def program_line() -> str:
    """The innermost line that is neither PyTorch's, einops' nor ours."""
    frame = sys._getframe(3)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_NOT_THE_USERS) and "/einops/" not in path:
            return f"{os.path.basename(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
