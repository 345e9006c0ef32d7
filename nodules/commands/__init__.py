"""The commands of `nodules`, one per file.

`add_to` declares a command and its options. Each command imports its dependencies when it runs, so
that `--help` and option errors are fast: importing TensorFlow takes seconds.
"""
