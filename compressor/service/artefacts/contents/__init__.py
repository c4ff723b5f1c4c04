"""Whether a file is what its kind says: weights, arrays or images, and nothing else. Imports no torch."""
