"""What is on the site, for mkdocs.yml.

The site keeps the paths of the repository, so links between documents work as they are.
A link to any other file of the repository leads to that file at `repo_url`.
"""

import os
import re
from pathlib import Path

from markdown.blockprocessors import ListIndentProcessor
from markdown.extensions import Extension
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["*.md", "docs/*.md", "docs/adr/*.md", "deploy/*/*.md", "docs/*.svg"]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(#[^)\s]*)?(?=\))")


class Nested(Extension):
    """Two spaces nest in a list, as on GitHub; Markdown's own rule is four."""

    def extendMarkdown(self, md):
        md.tab_length = 2
        for processor in md.parser.blockprocessors:
            processor.tab_length = 2
        md.parser.blockprocessors.register(ListIndentProcessor(md.parser), "indent", 90)


def on_config(config):
    config.markdown_extensions.append(Nested())


def on_files(files, config):
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in (path for pattern in DOCUMENTS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))


def on_page_markdown(markdown, page, config, files):
    def lead(link):
        there = (ROOT / page.file.src_uri).parent / link[1]
        path = os.path.relpath(there, ROOT)
        if path in files.src_uris or path.startswith("..") or not there.exists():
            return link[0]
        kind = "tree" if there.is_dir() else "blob"
        return f"{config.repo_url}/{kind}/main/{path}{link[2] or ''}"

    return LINK.sub(lead, markdown)
