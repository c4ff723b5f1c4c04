"""The program's version, as documents carry it."""

VERSION = "0.1.0"
