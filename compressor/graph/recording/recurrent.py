"""The arguments of a call of a recurrent layer, which are laid out otherwise for packed sequences."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.graph.recording.values import Node, Value


@dataclass(frozen=True)
class RecurrentLayers:
    """``torch.lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``.

    Attributes:
        weights: of every layer and in it every direction: W, U, where there are biases those of both, and where there
            is a projection that.
        directions: 1 or 2.
        packed: whether it gets the rows of all steps one after the other, and how many each step has.
        batch: the axis of the examples; None where there is none.
    """

    weights: list[list[Value]]
    directions: int
    packed: bool
    batch: int | None

    @property
    def projected(self) -> bool:
        """Whether the state is a projection of the cell's units."""
        return len(self.weights[0]) in (3, 5)


def recurrent_layers(node: Node) -> RecurrentLayers:
    """What a call was made with."""
    packed = not isinstance(node.args[1], list) and len(node.args[1].shape) == 1
    parameters = node.args[3] if packed else node.args[2]
    layers, directions = int(node.args[5 if packed else 4]), 2 if node.args[8 if packed else 7] else 1
    count = len(parameters) // (layers * directions)
    weights = [parameters[n : n + count] for n in range(0, len(parameters), count)]
    batch = None if packed or len(node.inputs[0].shape) < 3 else 0 if node.args[8] else 1
    return RecurrentLayers(weights, directions, packed, batch)
