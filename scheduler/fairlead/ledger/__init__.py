"""Facts in, balanced entries out: pure, integer, replayable. One GPU-millisecond is 840 ticks."""
