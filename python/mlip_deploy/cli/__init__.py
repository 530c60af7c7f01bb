"""The command `mlip`: one file for each subcommand, over the functions of the package."""
