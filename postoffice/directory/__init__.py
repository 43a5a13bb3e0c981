"""Which addresses are ours, and where each of them is delivered."""
