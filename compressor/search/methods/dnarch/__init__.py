"""DNArch: width, depth, kernel and resolution as differentiable masks."""
