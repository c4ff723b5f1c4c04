"""One file per deployment format, behind one small interface.

``exporters.registry.get("onnx")`` gives an :class:`exporters.base.Exporter`; every exporter writes its file atomically,
loads it again in the runtime it is meant for (where that runtime can run here) and compares it with PyTorch.
"""

from compressor.plugins import moved

moved.install()
