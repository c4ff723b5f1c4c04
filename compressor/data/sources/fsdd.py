"""Spoken digits: the Free Spoken Digit Dataset, 3,000 recordings of ten digits by six speakers at 8 kHz.

Read from the repository's own ``recordings/DIGIT_SPEAKER_TAKE.wav``, or from ``fsdd.npz`` with ``x`` (N, L) waveforms,
``y`` digits, ``speaker`` and ``take``. Each recording becomes half a second, cut or padded around its middle, with a
peak of one. Takes 0 to 4 are the test set, as the data set's authors have it; or all recordings of one speaker. With a
lower rate, what lies above half of it is taken out before samples are dropped.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.data.arrays import from_tensors
from compressor.data.base import Data
from compressor.data.memory import Normalise
from compressor.data.options import split_options
from compressor.errors import DataError, UsageError
from compressor.storage.packed import open_arrays
from compressor.storage.reading import parsing, require_file

LENGTH = 4000
_RATE_HZ = 8000
_TEST_TAKES = 5
_LONGEST_BYTES = 64 << 20
_KEYS = ("x", "y", "speaker", "take")


def load(argument: str) -> Data:
    """``DIR``, ``DIR,speaker=NAME``, which tests on a speaker that was never heard, or ``DIR,rate=2000``, in Hz.

    Inputs are (1, 4000), or (1, rate / 2), scaled to a spread of one over the training set.

    Raises:
        DataError: no recordings, or damaged ones.
        UsageError: an unknown option or speaker, or a rate that is no divisor of 8000.
    """
    place, options = split_options("fsdd", argument, {"speaker": str, "rate": _rate})
    waves, digits, speakers, takes = _read(Path(place))
    waves = _slower(waves, options.get("rate", _RATE_HZ))
    speaker = options.get("speaker")
    if speaker is not None and speaker not in set(speakers):
        raise UsageError(f"fsdd has no speaker {speaker!r}; it has {', '.join(sorted(set(speakers)))}.")
    test = speakers == speaker if speaker is not None else takes < _TEST_TAKES
    if test.all() or not test.any():
        raise DataError(f"'{place}' holds recordings for training or for testing alone; fetch the data set again.")
    inputs, targets = torch.from_numpy(waves)[:, None], torch.from_numpy(digits)
    train = torch.from_numpy(~test)
    spread = float(inputs[train].std()) or 1.0
    return from_tensors(
        (inputs[train], targets[train]),
        test=(inputs[~train], targets[~train]),
        name=f"fsdd:{argument}",
        num_classes=10,
        normalise=Normalise((0.0,), (round(spread, 4),)),
    )


def _rate(text: str) -> int:
    if not text.isdecimal() or not 100 <= int(text) <= _RATE_HZ or _RATE_HZ % int(text):
        raise ValueError(f"expected a divisor of {_RATE_HZ} of at least 100")
    return int(text)


def _slower(waves: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """(N, L) at 8 kHz to (N, L rate / 8000), by its spectrum."""
    if rate_hz == _RATE_HZ:
        return waves
    kept = waves.shape[1] * rate_hz // _RATE_HZ
    spectrum = np.fft.rfft(waves, axis=1)[:, : kept // 2 + 1]
    spectrum[:, -1] = 0  # half of the new rate itself cannot be told from its mirror image
    slower: NDArray[np.float32] = np.fft.irfft(spectrum, n=kept, axis=1).astype(np.float32)
    return slower * np.float32(kept / waves.shape[1])


_Recordings = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_], NDArray[np.int64]]


def _read(root: Path) -> _Recordings:
    file = root if root.suffix == ".npz" else root / "fsdd.npz"
    if file.is_file():
        return _read_npz(file)
    for folder in (root / "recordings", root):
        if any(folder.glob("*_*_*.wav")):
            return _read_waves(sorted(file for file in folder.iterdir() if _is_sound(file)))
    missing = "does not exist" if not root.exists() else "holds no recordings"
    raise DataError(f"'{root}' {missing}; expected recordings/DIGIT_SPEAKER_TAKE.wav or fsdd.npz in it.")


def _read_npz(file: Path) -> _Recordings:
    with open_arrays(file) as archive:
        lacking = [key for key in _KEYS if key not in archive.files]
        if lacking:
            raise DataError(f"'{file}' lacks {', '.join(lacking)}; expected the arrays {', '.join(_KEYS)}.")
        x, y, speaker, take = (archive[key] for key in _KEYS)
    if any(array.ndim != 1 for array in (y, speaker, take)) or any(a.dtype.kind not in "fiu" for a in (x, y, take)):
        raise DataError(f"'{file}' holds arrays of other shapes or types than {', '.join(_KEYS)} have; fetch it again.")
    if x.ndim != 2 or not (len(x) == len(y) == len(speaker) == len(take)):
        raise DataError(
            f"'{file}' holds x of shape {list(x.shape)} with {len(y)} digits, {len(speaker)} speakers and {len(take)} "
            "takes; expected (recordings, samples) and one of each."
        )
    return x.astype(np.float32), y.astype(np.int64), speaker.astype(np.str_), take.astype(np.int64)


def _is_sound(file: Path) -> bool:
    return file.suffix.lower() == ".wav" and not file.name.startswith(".")


def _read_waves(files: list[Path]) -> _Recordings:
    waves = np.zeros((len(files), LENGTH), np.float32)
    digits, speakers, takes = [], [], []
    for row, file in zip(waves, files, strict=True):
        digit, *speaker, take = file.stem.split("_") if "_" in file.stem else ("", "")
        if not (digit.isdecimal() and speaker and take.isdecimal()):
            raise DataError(f"'{file}' is named otherwise than DIGIT_SPEAKER_TAKE.wav; remove or rename it.")
        _place(row, _samples(file))
        digits.append(int(digit))
        speakers.append("_".join(speaker))
        takes.append(int(take))
    return waves, np.array(digits), np.array(speakers), np.array(takes)


def _samples(file: Path) -> NDArray[np.float32]:
    cure = "fetch it again"
    size = require_file(file, cure, limit=_LONGEST_BYTES, kind=DataError)
    with parsing(file, "readable WAV file", cure, kind=DataError), wave.open(str(file), "rb") as sound:
        found = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
        if found != (_RATE_HZ, 1, 2):
            rate, channels, width = found
            raise DataError(
                f"'{file}' has {rate} Hz, {channels} channel{'s' * (channels != 1)} and {8 * width} bits; convert it "
                f"to {_RATE_HZ} Hz, one channel and 16 bits."
            )
        if 2 * sound.getnframes() > size:
            raise DataError(f"'{file}' announces {sound.getnframes():,} samples and has {size:,} bytes; {cure}.")
        if not sound.getnframes():
            raise DataError(f"'{file}' holds no samples; {cure}, or remove it.")
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32)


def _place(row: NDArray[np.float32], samples: NDArray[np.float32]) -> None:
    """Put the middle of a recording into the middle of ``row``, with a peak of one."""
    length = len(row)
    samples = samples[max(0, (len(samples) - length) // 2) :][:length]
    start = (length - len(samples)) // 2
    row[start : start + len(samples)] = samples / max(1.0, float(np.abs(samples).max(initial=0.0)))
