"""How one run is trained: the loop, what it minimises, its schedules and recipes, checkpoints and processes."""
