"""An agent, and all that it measures, works where PyTorch is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: Everything an agent measures, in a process where torch and what comes with it cannot be imported.
MEASURE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "fvcore", "onnxscript", "sklearn", "scipy", "fastapi",
                                      "sqlalchemy", "pydantic"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
import hashlib
from pathlib import Path
import compressor.service.devices.agent
import compressor.service.devices.link
import compressor.cli.agent
from compressor.service.devices import measuring, protocol
from compressor.service.devices.measuring import Setup
from compressor.service.devices.operations import Operations
from compressor.service.devices.protocol import Request
from lut import Signature
from profilers.layers.layer_onnx import layer_onnx

folder, runtime = Path(sys.argv[1]), sys.argv[2]
setup = Setup(runtime, str(folder), threads=1)
known = Operations(setup.make(), folder, threads=1)
conv = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(8, 8))
shas = []
for width in (8, 16):
    content = layer_onnx(conv, width, width, anchors=False)
    shas.append(hashlib.sha256(content).hexdigest())
    (folder / f"{shas[-1]}.onnx").write_bytes(content)
asked = [
    Request("open"),
    Request("busy"),
    Request("measure", arguments={"signature": conv.key, "channels_in": 8, "channels_out": 16}),
    Request("networks", arguments={"paths": [("a", shas[1])], "reference": shas[0], "network_ms": None, "rounds": 1}),
    Request("pair", arguments={"original": shas[0], "other": shas[1], "limit": None, "seconds": 0.1, "sure": 1.0}),
    Request("interleave", arguments={"models": [(n, {"file": n, "feeds": None}) for n in shas], "seconds": 0.1}),
    Request("samples", arguments={"file": shas[0], "feeds": None, "runs": 2}),
]
asked += [Request("kernels", arguments={"file": shas[0], "runs": 3})] * (runtime != "simulated")
for request in asked:
    answer = known.answer(request)
    assert "error" not in answer, (request.operation, answer)
assert not {"torch", "torchvision"} & set(sys.modules), "torch"
print("measured", len(asked))
"""


@pytest.mark.parametrize("runtime", ["simulated", "onnxruntime-cpu", "openvino-cpu"])
def test_an_agent_measures_without_torch(runtime: str, tmp_path: Path) -> None:
    if runtime == "openvino-cpu":
        pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), runtime], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("measured")
