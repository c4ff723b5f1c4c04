"""Names for the arrays that pass between rooms."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: True for what is kept, one entry per unit of a graph.
UnitMask = npt.NDArray[np.bool_]
