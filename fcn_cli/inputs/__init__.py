"""Inputs: find images, decode and resize them in processes with bounds."""
