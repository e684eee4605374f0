"""What the site needs beyond MkDocs: the changelog as a page, no links out of docs/, no network."""

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CHANGELOG = "CHANGELOG.md"
STYLE = "site.css"
# [text](target) outside of code; the target without its anchor is the second group.
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:attr|class|func|meth|mod):<code>(~?)([\w.]+)</code>")
_LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog, which lies at the top of the repository, as a page; and the style sheet."""
    files.append(File.generated(config, CHANGELOG, abs_src_path=str(ROOT / CHANGELOG)))
    files.append(File.generated(config, STYLE, abs_src_path=str(Path(__file__).with_name(STYLE))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to the changelog to its page; of others that leave docs/ only the words stay."""
    docs = Path(config.docs_dir)
    markdown = markdown.replace("<details>", "<details markdown>")  # else what they fold away stays as typed
    # The changelog is written for its place, from where the pages lie below docs/.
    markdown = markdown.replace("](docs/", "](") if page.file.src_uri == CHANGELOG else markdown

    def lead(link: re.Match[str]) -> str:
        words, target, _ = link.groups()
        lies = (docs / page.file.src_uri).parent.joinpath(target).resolve()
        if lies == ROOT / CHANGELOG:
            return f"[{words}]({'../' * page.file.src_uri.count('/')}{CHANGELOG})"
        return link[0] if lies.is_relative_to(docs) else words

    return _LINK.sub(lead, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show a role of a docstring (``:class:`~align_cache.Run```) as the name alone."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)


class _Loads(HTMLParser):
    """Collects what a browser would load to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") != "canonical":
            self.addresses.append(given.get(_LOADS.get(tag, "")) or "")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that a browser cannot show without a network."""
    loads = _Loads()
    loads.feed(output)
    outside = [address for address in loads.addresses if address.startswith(("http:", "https:", "//"))]
    if outside:
        raise PluginError(f"{page.file.src_uri} loads from a network: {', '.join(outside)}")
    return output
