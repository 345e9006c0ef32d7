"""Lung-nodule patch classification: the library behind the pipeline's stages and commands.

Importing any of its modules runs this one first and so sets TensorFlow's environment, before
TensorFlow is imported. Variables that the user has set stay as they are.
"""

import os

_TENSORFLOW = {
    # By default TensorFlow uses oneDNN's kernels only on CPUs with the newest instructions; they
    # train these networks faster on older ones too.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # The number of threads that share an operation decides the order of its sums, and so their last
    # bits. With one thread, results do not depend on the number of processors. Parts of a batch in
    # training, and batches in scoring, are computed in parallel instead.
    "TF_NUM_INTRAOP_THREADS": "1",
    # TensorFlow logs the lack of a GPU as an error. Real errors are raised as exceptions.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Not for child processes that run another revision, which may set others.
VARIABLES_SET = frozenset(_TENSORFLOW.keys() - os.environ.keys())
os.environ.update({name: _TENSORFLOW[name] for name in VARIABLES_SET})
