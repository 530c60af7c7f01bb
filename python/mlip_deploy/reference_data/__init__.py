"""Reference data: named sets, their readers, and the statistics of errors."""
