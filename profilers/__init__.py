"""One file per runtime: time a network, or one operator of it, on the device it will run on.

``profilers.registry.get("onnxruntime-cpu").load(model, example_inputs)`` gives a runner;
``profilers.interleave.interleave({"a": runner, "b": other})`` times runners in turn and compares them.
"""

from compressor.plugins import moved

moved.install()
