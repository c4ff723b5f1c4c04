"""The environment that a job's process has: what it needs to find, and no key, token or address."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from compressor.service.worker.processes import MARK

_KEPT = (
    *("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUBLAS_WORKSPACE_CONFIG"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "OMP_PROC_BIND", "ATEN_CPU_CAPABILITY", "PYTHONPYCACHEPREFIX"),
)


def environment(
    folder: str, mark: str, *, python_path: Sequence[str] = (), said: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a child.

    Args:
        folder: of the job, as the child finds it.
        python_path: where modules of the user's own are.
        said: the worker's own environment.
    """
    outer = os.environ if said is None else said
    found = {name: outer[name] for name in _KEPT if name in outer}
    found |= {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{folder}/home",
        "USER": "job",
        "LOGNAME": "job",
        "XDG_CACHE_HOME": f"{folder}/cache",
        "TORCH_HOME": str(torch_home(outer)),
        "HF_HOME": str(hugging_face_home(outer)),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        MARK: mark,
    }
    if python_path:
        found["PYTHONPATH"] = os.pathsep.join(python_path)
    return found


def caches(said: Mapping[str, str] | None = None) -> list[str]:
    """Folders with weights that were fetched before, which jobs may read. Hugging Face's token lies beside its own."""
    outer = os.environ if said is None else said
    hub = hugging_face_home(outer)
    places = [str(place) for place in (torch_home(outer), hub / "hub", hub / "datasets")]
    libraries = [each for each in outer.get("LD_LIBRARY_PATH", "").split(os.pathsep) if each]
    return [place for place in (*places, *libraries) if os.path.isdir(place)]


def torch_home(said: Mapping[str, str]) -> Path:
    """Where torch keeps weights."""
    return Path(said.get("TORCH_HOME") or _cache(said) / "torch").expanduser().absolute()


def hugging_face_home(said: Mapping[str, str]) -> Path:
    """Where Hugging Face's libraries keep what they fetched."""
    return Path(said.get("HF_HOME") or _cache(said) / "huggingface").expanduser().absolute()


def _cache(said: Mapping[str, str]) -> Path:
    return Path(said.get("XDG_CACHE_HOME") or Path.home() / ".cache")
