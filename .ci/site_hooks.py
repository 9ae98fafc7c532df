"""Hooks of MkDocs: what the site has beyond docs/, and links to files of the repository.

The pages are those that a reader of the repository has, with links that work there. On the site, README.md, CHANGELOG.md,
CONTRIBUTING.md and SECURITY.md are pages too, a link to a picture takes it along, and a link to any other file becomes plain text,
because the site does not have the file. A link to what does not exist stays as it is, and MkDocs reports it.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".ci")]  # for this import alone: MkDocs restores the path
from configuration import page as reference  # noqa: E402

TOP = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "SECURITY.md": "SECURITY.md"}
"""Pages outside docs/ and their names on the site."""
_REFERENCE = "<!-- the values -->"
_FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and the pictures of benchmarks."""
    pictures = [path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks" / "results").glob("*.svg")]
    for name, uri in {**TOP, **{picture: picture for picture in pictures}}.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the reference of the configuration into its page, and adapt links."""
    if _REFERENCE in markdown:
        try:
            markdown = markdown.replace(_REFERENCE, reference())
        except ValueError as error:
            raise PluginError(str(error)) from error
    inside = next((name for name, uri in TOP.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")
    parts = _FENCE.split(markdown)  # every other part is a block of code
    parts[::2] = [_LINK.sub(lambda link: _adapted(link, inside, page, files), part) for part in parts[::2]]
    return "".join(parts)


def _adapted(link: re.Match[str], inside: str, page: Page, files: Files) -> str:
    """Return a link in the file `inside` of the repository as it is on the site."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(inside), link["path"]))
    uri = TOP.get(path, path.removeprefix("docs/"))
    if files.get_file_from_path(uri):
        target = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri))
        return f"{link['image']}[{link['text']}]({target}{link['anchor'] or ''})"
    return link["text"] if (ROOT / path).exists() and not link["image"] else link[0]
