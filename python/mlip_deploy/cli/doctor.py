"""`mlip doctor`: show versions, devices and problems with their cure."""

from __future__ import annotations

import argparse

from rich.table import Table

from mlip_deploy.cli.console import escape, progress_line, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(options: argparse.Namespace) -> int:
    """Examine, and print. Returns 1 when there is a problem."""
    from mlip_deploy.environment.doctor import examine

    with progress_line() as step:
        step("looking at the environment")
        findings = examine()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for finding in findings:
        table.add_row(finding.item, escape(finding.found) if finding.ok else f"[red]{escape(finding.found)}[/]")
        if not finding.ok:
            table.add_row("", f"[red]{escape(finding.problem)}[/]")
            table.add_row("", f"type: [bold]{escape(finding.remedy)}[/]")
    show(table)
    return 0 if all(finding.ok for finding in findings) else 1
