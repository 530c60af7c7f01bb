"""For mkdocs: README.md is the front page, and files outside docs/ to which a page links belong to the site.

So one link, written relative to the file that it stands in, works in the repository and on the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FRONT_PAGE = "README.md"
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def place(path: str) -> str:
    """Where a file of the repository stands on the site."""
    return "index.md" if path == FRONT_PAGE else path.removeprefix("docs/")


def target(link: str, page: str) -> str:
    """The file of the repository that a link on one of its pages names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = [FRONT_PAGE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for page in pages:  # grows: the pages that are linked have links themselves
        if page in pages[:1] or not page.startswith("docs/"):
            files.append(File.generated(config, place(page), abs_src_path=str(ROOT / page)))
        if not page.endswith(".md"):
            continue
        for _, link, _ in LINK.findall((ROOT / page).read_text()):
            path = target(link, page)
            if not path.startswith("docs/") and path not in pages and (ROOT / path).is_file():
                pages.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    folder = posixpath.dirname(page.file.src_uri)
    if source == FRONT_PAGE:
        page.meta["hide"] = ["navigation"]  # a section of one page

    def to_the_site(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        return before + posixpath.relpath(place(target(link, source)), folder or ".") + after

    return LINK.sub(to_the_site, markdown)
