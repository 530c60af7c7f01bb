"""Reference data: labels of published sets and of users' files, in their energy frames."""
