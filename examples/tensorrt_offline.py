"""A latency budget on a GPU host without a network: pack a folder here, carry it over, run one command there.

    python examples/tensorrt_offline.py --model resnet18 --budget 50% bundle          # here; needs no GPU
    python examples/tensorrt_offline.py --model resnet18 --wheels bundle              # with all packages to install

    pip install --no-index --find-links wheels -r requirements.txt                    # there, once, in the folder
    python run.py                                                                     # there: the one command

The folder holds this program, the weights and ``run.py``, which measures the host's TensorRT, compresses under the
budget, builds the engines, times them and leaves ``results.json``. ``python run.py onnxruntime-cpu`` (or ``simulated``)
tries the folder out on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file

from compressor.models import load_model

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compressor", "profilers", "exporters", "lut")
REQUIREMENTS = """\
torch>=2.11
torchvision>=0.26
onnx>=1.18
onnxscript>=0.5
onnxruntime-gpu>=1.22
fvcore>=0.1.5.post20221221
click>=8.1
numpy>=1.26
safetensors>=0.5
rich>=13
scikit-learn>=1.5
tensorrt>=10
"""
RUN = '''\
"""Compress under a latency budget on this machine. python run.py [TARGET]; see README.txt."""

import contextlib
import io
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "program"))

from compressor.cli import main
from profilers import registry

WANTED = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
found = registry.availability()
for name in WANTED:
    print(f"{{name}}: {{found[name].reason or 'available'}}", file=sys.stderr)
target = sys.argv[1] if len(sys.argv) > 1 else next((name for name in WANTED if found[name]), None)
if target is None:
    raise SystemExit("No target on a GPU is available here; see the reasons above, or name a target.")
formats = "onnx" + ("," + target if target in ("tensorrt", "tensorrt-rtx") else "")
job = ["--model", {model!r}, "--weights", str(HERE / "weights.safetensors"), "--budget-latency", {budget!r}]
job += ["--target", target, "--lut", str(HERE / "lut.sqlite"), "--export", formats, "--format", "json"]
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    code = main([*job, "--out", str(HERE / "compressed")])
if code == 0:
    (HERE / "results.json").write_text(printed.getvalue(), encoding="utf-8")
    print(f"The report is in {{HERE / 'results.json'}} and compressed/report.html, the engines beside it.")
raise SystemExit(code)
'''
README = """\
Once, in this folder:   pip install --no-index --find-links wheels -r requirements.txt
                        (without a folder "wheels": pip install -r requirements.txt where there is a network)
Then:                   python run.py

It measures the operators of {model} on this GPU into lut.sqlite (minutes; stop and run again to go on), searches for a
network that takes {budget} of the original's time, checks the budget on the device, and writes engines and a report to
"compressed", and the report as results.json. TensorRT engines fit the GPU and the version they were built with.
"""


def pack(model: str, budget: str, weights: str, folder: Path) -> None:
    """Write everything that the host needs, packages to install left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, folder / "program" / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    loaded = load_model(model, weights=weights)
    save_file({k: v.contiguous() for k, v in loaded.model.state_dict().items()}, str(folder / "weights.safetensors"))
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    (folder / "run.py").write_text(RUN.format(model=model, budget=budget), encoding="utf-8")
    (folder / "README.txt").write_text(README.format(model=model, budget=budget), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--weights", default="none", help="default, none or a file")
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--wheels", action="store_true", help="download the packages, too, for a host like this one")
    given = parser.parse_args()
    pack(given.model, given.budget, given.weights, given.folder)
    if given.wheels:
        wheels = ["--dest", str(given.folder / "wheels"), "--requirement", str(given.folder / "requirements.txt")]
        subprocess.run([sys.executable, "-m", "pip", "download", *wheels], check=True)
    print(f"{given.folder} is packed; on the host run: python run.py")


if __name__ == "__main__":
    main()
