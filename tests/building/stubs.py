"""Extension modules that compile in no time, being without pybind11."""

SOURCE = """
#include <Python.h>
{functions}
static PyMethodDef methods[] = {{{rows}}};
static PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "{name}", nullptr, -1, methods}};
PyMODINIT_FUNC PyInit_{name}() {{ return PyModule_Create(&definition); }}
"""
FUNCTION = "static PyObject* {name}(PyObject*, PyObject*) {{ return {returned}; }}"
ROW = '{{"{name}", {name}, METH_NOARGS, nullptr}}'


def module(name: str, functions: dict[str, str]) -> str:
    """The C++ source of a module whose functions return what the expressions say."""
    bodies = (FUNCTION.format(name=key, returned=value) for key, value in functions.items())
    rows = ", ".join([*(ROW.format(name=key) for key in functions), "{}"])
    return SOURCE.format(name=name, functions="\n".join(bodies), rows=rows)
