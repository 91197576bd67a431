"""Training of policies: the training program, and (beside it) the service that runs it."""
