"""NCE as public implementations compute it, written from scratch in each framework.

Negatives come from alias tables; ``B x (m + 1) x d`` rows are gathered; a batched product scores
them; Z is a constant; the framework differentiates the loss. No code of instdisc_core is used.
"""

import keras

BACKEND = keras.backend.backend()

if BACKEND == "torch":
    import torch
    import torch.nn.functional as F

    class NCE:
        """The baseline in PyTorch."""

        def __init__(self, rows, num_negatives, temperature, z, keep_buffer=False):
            self.bank = torch.as_tensor(rows, device=keras.ops.ones(()).device)
            self.buffer = self.bank.new_empty(0) if keep_buffer else None
            n, device = len(rows), self.bank.device
            self.threshold = torch.ones(n, device=device)  # of alias tables for uniform noise
            self.alias = torch.zeros(n, dtype=torch.int64, device=device)
            self.m, self.temperature, self.z, self.p_noise = num_negatives, temperature, z, 1 / n

        def draw(self, indices):
            """Indices ``(B, m + 1)``, the positive first."""
            size = len(indices) * (self.m + 1)
            slot = torch.randint(len(self.bank), (size,), device=indices.device)
            own = torch.rand(size, device=indices.device) < self.threshold[slot]
            drawn = torch.where(own, slot, self.alias[slot]).view(len(indices), -1)
            drawn[:, 0] = indices
            return drawn

        def losses(self, features, drawn):
            """The losses ``(B,)``."""
            rows = self.gather(drawn.flatten()).view(*drawn.shape, -1)
            p = (
                torch.exp(torch.bmm(rows, features[:, :, None])[:, :, 0] / self.temperature)
                / self.z
            )
            noise = self.m * self.p_noise
            positive = torch.log(p[:, 0] / (p[:, 0] + noise))
            negatives = torch.log(noise / (p[:, 1:] + noise))
            return -positive - negatives.sum(1)

        def gather(self, drawn):
            """The rows, in fresh memory or in a buffer that is kept from step to step."""
            if self.buffer is None:
                return self.bank.index_select(0, drawn)
            self.buffer.resize_(len(drawn), self.bank.shape[1])
            return torch.index_select(self.bank, 0, drawn, out=self.buffer)

        def step(self, features, indices):
            """Losses and gradient."""
            features = features.detach().requires_grad_()
            losses = self.losses(features, self.draw(indices))
            (gradient,) = torch.autograd.grad(losses.sum(), features)
            return losses.detach(), gradient

    def softmax(rows, temperature):
        """The exact softmax as one would write it: product, cross-entropy, backward."""
        bank = torch.as_tensor(rows, device=keras.ops.ones(()).device)

        def step(features, indices):
            features = features.detach().requires_grad_()
            losses = F.cross_entropy(
                features @ bank.T / temperature, indices.long(), reduction="none"
            )
            (gradient,) = torch.autograd.grad(losses.sum(), features)
            return losses.detach(), gradient

        return step

elif BACKEND == "tensorflow":
    import tensorflow as tf

    class NCE:
        """The baseline in TensorFlow."""

        def __init__(self, rows, num_negatives, temperature, z):
            self.bank = tf.Variable(rows, trainable=False)
            self.threshold = tf.ones(len(rows))
            self.alias = tf.zeros(len(rows), tf.int32)
            self.n, self.m, self.temperature, self.z = len(rows), num_negatives, temperature, z

        def draw(self, indices):
            """Indices ``(B, m + 1)``, the positive first."""
            shape = (len(indices), self.m)
            slot = tf.random.uniform(shape, 0, self.n, tf.int32)
            own = tf.random.uniform(shape) < tf.gather(self.threshold, slot)
            return tf.concat(
                [indices[:, None], tf.where(own, slot, tf.gather(self.alias, slot))], 1
            )

        def losses(self, features, drawn):
            """The losses ``(B,)``."""
            rows = tf.gather(self.bank, drawn)
            p = tf.exp(tf.linalg.matvec(rows, features) / self.temperature) / self.z
            noise = self.m / self.n
            positive = tf.math.log(p[:, 0] / (p[:, 0] + noise))
            negatives = tf.math.log(noise / (p[:, 1:] + noise))
            return -positive - tf.reduce_sum(negatives, 1)

        @tf.function
        def step(self, features, indices):
            """Losses and gradient."""
            with tf.GradientTape() as tape:
                tape.watch(features)
                losses = self.losses(features, self.draw(indices))
            return losses, tape.gradient(losses, features)

    def softmax(rows, temperature):
        """The exact softmax as one would write it: product, cross-entropy, backward."""
        bank = tf.Variable(rows, trainable=False)

        @tf.function
        def step(features, indices):
            with tf.GradientTape() as tape:
                tape.watch(features)
                s = tf.matmul(features, bank, transpose_b=True) / temperature
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(indices, s)
            return losses, tape.gradient(losses, features)

        return step

else:
    from functools import partial

    import jax
    import jax.numpy as jnp

    class NCE:
        """The baseline in JAX."""

        def __init__(self, rows, num_negatives, temperature, z):
            self.bank = jnp.asarray(rows)
            self.tables = jnp.ones(len(rows)), jnp.zeros(len(rows), jnp.int32)
            self.n, self.m, self.temperature, self.z = len(rows), num_negatives, temperature, z
            self.key = jax.random.key(0)

        def draw(self, tables, key, indices):
            """Indices ``(B, m + 1)``, the positive first."""
            shape = (len(indices), self.m)
            one, other = jax.random.split(key)
            slot = jax.random.randint(one, shape, 0, self.n)
            own = jax.random.uniform(other, shape) < tables[0][slot]
            drawn = jnp.where(own, slot, tables[1][slot])
            return jnp.concatenate([indices[:, None], drawn], axis=1)

        def losses(self, features, drawn, bank=None):
            """The losses ``(B,)``."""
            bank = self.bank if bank is None else bank
            s = jnp.einsum("bkd,bd->bk", bank[drawn], features) / self.temperature
            p, noise = jnp.exp(s) / self.z, self.m / self.n
            positive = jnp.log(p[:, 0] / (p[:, 0] + noise))
            return -positive - jnp.log(noise / (p[:, 1:] + noise)).sum(1)

        @partial(jax.jit, static_argnums=0)
        def _step(self, bank, tables, key, features, indices):
            drawn = self.draw(tables, key, indices)

            def total(features):
                losses = self.losses(features, drawn, bank)
                return losses.sum(), losses

            gradient, losses = jax.grad(total, has_aux=True)(features)
            return losses, gradient

        def step(self, features, indices):
            """Losses and gradient."""
            self.key, key = jax.random.split(self.key)
            return self._step(self.bank, self.tables, key, features, indices)

    def softmax(rows, temperature):
        """The exact softmax as one would write it: product, cross-entropy, backward."""
        bank = jnp.asarray(rows)

        @jax.jit
        def run(bank, features, indices):
            def total(features):
                s = features @ bank.T / temperature
                own = jnp.take_along_axis(s, indices[:, None], axis=1)[:, 0]
                losses = jax.nn.logsumexp(s, axis=1) - own
                return losses.sum(), losses

            gradient, losses = jax.grad(total, has_aux=True)(features)
            return losses, gradient

        return lambda features, indices: run(bank, features, indices)
