"""One compression on several processes, each with a part of every batch, in a script that has a process group already.

    torchrun --nproc-per-node 2 examples/two_processes.py

Started by itself, it starts itself so. On GPUs each process has one of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import torch
import torch.distributed as dist

import compressor
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.data import load_data


def main(epochs: int) -> None:
    on_gpu = torch.cuda.is_available()
    device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo")
    torch.manual_seed(0)  # all of them begin with the same weights
    model = resnet20_cifar(in_channels=1).to(device)
    data = load_data("digits")  # whole everywhere: batches are parted
    result = compressor.compress(
        model,
        data.example_inputs,
        {"flops": "50%"},
        data=data,
        search="figs",
        training=compressor.Training(search_epochs=epochs, finetune_epochs=epochs, batch_size=64, accumulate=2),
    )
    if dist.get_rank() == 0:  # every process has the result; one is enough to save it
        kept = sum(p.numel() for p in result.model.parameters()) / sum(p.numel() for p in model.parameters())
        print(f"{dist.get_world_size()} processes kept {kept:.0%} of the weights: {result.report.accuracy}")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    told = parser.parse_args()
    if "RANK" in os.environ:
        main(told.epochs)
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        sys.exit(subprocess.call([*start, *sys.argv]))
