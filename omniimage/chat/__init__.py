"""A conversation with a trained model at a terminal or of a script: what a line does, what is shown, what is kept."""
