"""The claim policy at a scale no test machine has: a discrete-event simulation of the worker's own function."""
