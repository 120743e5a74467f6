"""Where images come from: `load` turns a declaration into a training and a test set."""
