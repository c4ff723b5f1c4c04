"""A network that takes half the time on this machine: for ONNX Runtime, or for OpenVINO.

    python examples/latency_budget.py onnxruntime-cpu
    python examples/latency_budget.py openvino-cpu
    python examples/latency_budget.py simulated         # no device: a trial in seconds

The first run measures the operators of ResNet-18 into the latency table (a few minutes); later runs find them there.
"""

from __future__ import annotations

import sys

import torch
from torchvision.models import resnet18

import compressor


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "onnxruntime-cpu"
    model = resnet18().eval()  # load your weights here, and pass data= to fine-tune what is left
    result = compressor.compress(
        model, torch.randn(1, 3, 224, 224), {"latency": "50%"}, target=target, benchmark=True, verbose=True
    )
    (budget,) = result.report.budgets
    print(f"{target}: {budget.original:.2f} ms -> {budget.reached:.2f} ms, at most {budget.limit:.2f} ms")
    result.save(f"resnet18-{target}")
    result.export(f"resnet18-{target}", ("onnx", "openvino") if target == "openvino-cpu" else ("onnx",))


if __name__ == "__main__":
    main()
