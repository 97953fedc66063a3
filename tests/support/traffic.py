"""Communication between devices, read exactly from a program."""

import jax


def sent(jaxpr, times: int = 1) -> list[tuple[jax.core.ShapedArray, int]]:
    """Every array a device sends to the next, and how often."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "ppermute":
            found += [(variable.aval, times) for variable in equation.invars]
        repeated = times * equation.params["length"] if equation.primitive.name == "scan" else times
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                found += sent(inner, repeated)
    return found
