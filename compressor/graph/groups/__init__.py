"""Kinds of groups: what units that go together are, and how they may go. Each kind is a file of its own."""

from compressor.graph.groups.alternatives import Alternative, Alternatives
from compressor.graph.groups.base import Group
from compressor.graph.groups.channels import Channels
from compressor.graph.groups.frequencies import Frequencies
from compressor.graph.groups.rings import Rings

__all__ = ["Alternative", "Alternatives", "Channels", "Frequencies", "Group", "Rings"]
