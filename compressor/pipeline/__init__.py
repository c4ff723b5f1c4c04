"""One job from model to result, and the same masks in a loop of one's own."""
