"""The optimizer of a recipe and the schedule of its learning rate."""

import keras

from nodules.training.recipe import Recipe


def new_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """Create the optimizer of a recipe, with its schedule over epochs of `steps` batches."""
    rate = _learning_rate(recipe, steps)
    match recipe.optimizer:
        case "adam":
            return keras.optimizers.Adam(rate)
        case "adamw":
            decay = recipe.weight_decay
            optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
        case "sgd":
            decay = recipe.weight_decay
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    # Decay of offsets and normalisation scales does not regularise; only kernels decay.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _learning_rate(
    recipe: Recipe, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    warmup = round(recipe.warmup_epochs * steps)
    if recipe.schedule == "constant" and not warmup:
        return recipe.learning_rate
    constant = recipe.schedule == "constant"
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, recipe.epochs * steps - warmup),
        alpha=1.0 if constant else 0.0,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
