"""Lung-nodule patch classification: the library behind the pipeline's stages and commands.

Importing any of its modules runs this one first and so sets TensorFlow's environment, before
TensorFlow is imported. Variables that the user has set stay as they are.
"""

import os

# By default TensorFlow uses oneDNN's kernels only on CPUs with the newest instructions; they train
# these networks faster on older ones too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# The number of threads that share an operation decides the order of its sums, and so their last
# bits. With one thread, results do not depend on the number of processors. Parts of a batch in
# training, and batches in scoring, are computed in parallel instead.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# TensorFlow logs the lack of a GPU as an error. Real errors are raised as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
