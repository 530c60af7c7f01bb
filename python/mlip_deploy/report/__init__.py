"""Pages: HTML with verdicts, tables and plots."""
