"""Size of a network's feature maps, which determines the memory of a forward pass."""

import math

import keras


def largest_feature_map(model: keras.Model) -> int:
    """Return the number of values of the largest layer output for one patch; 1 if unknown."""
    if not isinstance(model, keras.Function):
        return 1
    outputs = [tensor for each in model.operations for tensor in keras.tree.flatten(each.output)]
    sizes = [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in outputs]
    return max(sizes, default=1)
