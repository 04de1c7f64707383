"""The learning rate of the recipes."""

import math

import keras

from instdisc_core.validation import require_count


@keras.saving.register_keras_serializable(package="instdisc_core")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that warms up, and then falls in steps or along a cosine.

    Args:
        highest: the learning rate after the warm-up, greater than 0.
        steps: of the whole training; from there on a cosine stays at 0.
        warmup_steps: in which it rises linearly, from one step's share to the highest.
        milestones: steps at which it is divided by 10; none is a cosine.

    Source:
        The steps are those of Wu et al.; the cosine is Loshchilov and Hutter's, ICLR 2017.

    Example: ``keras.optimizers.SGD(Schedule(0.03, steps=78_200, milestones=[46_920, 62_560]))``
    """

    def __init__(self, highest, steps, warmup_steps=0, milestones=()):
        require_count("steps", steps)
        self.highest, self.steps = highest, steps
        self.warmup_steps, self.milestones = warmup_steps, list(milestones)

    def __call__(self, step):
        """The learning rate at a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        warm = keras.ops.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        if self.milestones:
            passed = sum(keras.ops.cast(step >= m, "float32") for m in self.milestones)
            return self.highest * warm * 10.0**-passed
        cooling = max(self.steps - self.warmup_steps, 1)
        done = keras.ops.clip((step - self.warmup_steps) / cooling, 0.0, 1.0)
        return self.highest * warm * 0.5 * (1 + keras.ops.cos(math.pi * done))

    def get_config(self):
        """The arguments that rebuild this schedule."""
        return {
            "highest": self.highest,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "milestones": self.milestones,
        }
