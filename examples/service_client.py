"""A job on a service, from a program: submitted, watched, fetched, and its exported network run.

    compress serve                                                     # in another terminal, or on another machine
    python examples/service_client.py --server http://127.0.0.1:8080   # half a minute; digits, no download

Without ``--server`` it starts one of its own, in a folder that goes away afterwards. A server with keys wants one in
COMPRESSOR_KEY.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime

import compressor


def main(server: str, epochs: int, out: Path) -> None:
    recipe = {
        "model": "resnet20_cifar",
        "weights": "none",
        "data": "digits",
        "search": "oneshot",
        "budgets": {"flops": "50%"},
        "train_epochs": epochs,
        "finetune_epochs": epochs,
        "export": ["onnx"],
    }
    with compressor.Client(server) as client:
        job = client.submit(recipe, name="digits at half the cost")
        print(f"submitted {job.id} to {client.url}")
        for event in job.events():
            if event.kind == "StageBegan":
                print(f"  {event.body['stage']} ...")
        job.wait()  # raises what went wrong, if something did
        cost = job.status()["costs"]["flops"]
        print(f"done: {cost['value'] / cost['original']:.0%} of the multiply-adds")
        files = job.fetch(out)
        print(f"fetched {len(files)} files into {out}")

    session = onnxruntime.InferenceSession(out / "model.onnx")
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    (scores,) = session.run(None, {given.name: np.zeros(shape, np.float32)})
    print(f"{out / 'model.onnx'} gives {scores.shape[-1]} scores")


@contextmanager
def own_server() -> Iterator[str]:
    """A server for as long as the block runs; its address."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "compressor", "serve", "--port", "0", "--data-dir", f"{folder}/data"]
        with log.open("w") as stream, subprocess.Popen(command, stderr=stream) as process:
            try:
                while not (said := re.search(r"Serving on (http://\S+)", log.read_text())):
                    if process.poll() is not None:
                        raise SystemExit(f"compress serve did not start: {log.read_text()}")
                    time.sleep(0.1)
                yield said[1]
            finally:
                process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="the service; without it, one of its own")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training and of fine-tuning")
    parser.add_argument("--out", type=Path, default=Path("digits-half"), help="folder of the result")
    arguments = parser.parse_args()
    if arguments.server:
        main(arguments.server, arguments.epochs, arguments.out)
    else:
        with own_server() as server:
            main(server, arguments.epochs, arguments.out)
