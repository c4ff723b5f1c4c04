"""From a recording to what may change, and to what it costs."""
