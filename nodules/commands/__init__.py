"""The commands of `nodules`, one per file.

`add_to` declares a command and its options. What it needs is imported as it runs, so that help and
wrong options cost nothing: TensorFlow alone takes seconds.
"""
