"""A network in its fast CPU form: layers, Winograd, the cost model, the workspace."""
