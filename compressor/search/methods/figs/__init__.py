"""FiGS: stochastic channel masks."""
