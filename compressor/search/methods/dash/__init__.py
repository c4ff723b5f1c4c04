"""DASH: the kernel size and dilation of every convolution."""
