"""Tests of what stands beside the optimizers: groups by depth, batch norm, losses."""
