"""Aggregated convolutions: mixtures of convolutions of many kernel sizes and dilations (DASH, Shen et al., 2022).

``candidates`` says what is mixed, ``spans`` where its taps lie and which of them can matter, ``combine`` sums kernels,
``fourier`` convolves through spectra (``spectra`` moves them), ``forms`` has the three ways to compute one mixture,
``fastest`` measures which is the quickest, ``remembered`` keeps that, and ``modules`` has the modules.
"""
