"""What travels in a checkpoint against the ways that torch has of carrying an optimizer's state.

A cell of the matrix is (class of the optimizer, setting, carrier, scenario, into what is loaded):
``scenarios.py`` says what travels, ``scenarios_of_others.py`` that of other optimizers than AdamW,
``settings.py`` how the parameters lie, ``carriers.py`` how the state is carried, ``cells.py`` which
of them meet. A launch of processes goes through all cells of its world size; each cell is a test of
its own, which reads what became of it.
"""
