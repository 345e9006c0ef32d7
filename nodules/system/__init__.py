"""Operating-system services of all commands: atomic writes, signals, exit statuses, limits."""
