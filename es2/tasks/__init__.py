"""Tasks of lm-evaluation-harness that the study brings itself: one declarative YAML file each, and its questions."""
