"""A network in the form that a CPU computes fastest: layers, Winograd, cost model, workspace."""
