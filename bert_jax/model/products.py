"""The matrix product of linear layers."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def linear_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply vectors by a kernel: [..., D], [D, E] -> [..., E].

    As `jnp.dot`, but the gradient of the kernel is one product of matrices, written with the result in the kernel's own layout. JAX
    derives the transpose of it, for which XLA transposes the gradient of every layer's output in memory. What that costs on CPUs is in
    docs/performance.md.
    """
    return jnp.dot(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.dot(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    flat_x, flat_gradient = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    of_x = jax.lax.dot_general(flat_gradient, kernel, (((1,), (1,)), ((), ())))
    of_kernel = jax.lax.dot_general(flat_x, flat_gradient, (((0,), (0,)), ((), ())))
    return of_x.reshape(x.shape), of_kernel


linear_product.defvjp(_forward, _backward)
