"""From a torch module to a model file that any board can train: needs the torch extra, on a workstation."""
