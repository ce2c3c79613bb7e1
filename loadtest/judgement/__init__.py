"""`make bench-judgement`: how well bounces, replies and complaints are judged, flufl.bounce beside ours on the same files."""
