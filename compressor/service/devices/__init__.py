"""Devices of other machines: who they are, what they measured, and the way of a measurement there and back.

The child of a job asks by a socket in its folder (``remote``, ``channel``), the worker by HTTP (``relay``), the server
keeps the question until the device's agent fetches it (``commands``), and the agent measures in a process that can be
killed (``agent``, ``measurer``, ``measuring``).
"""
