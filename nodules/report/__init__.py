"""The report of `nodules compare`: text, tables and charts."""
