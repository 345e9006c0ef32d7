"""What every command needs of the operating system: whole files or none, signals, exit statuses."""
