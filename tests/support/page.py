"""An HTML page as its elements, as processed by a browser or a screen reader."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "br", "input", "link", "hr"}
Attributes = dict[str, str | None]


@dataclass
class Element:
    """One element; `text` is its text and that of all elements inside."""

    tag: str
    attributes: Attributes
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Parses a page; `elements` in order of their start tags. Fails if elements are not closed in order."""

    source: str
    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), tuple(parent.tag for parent in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"{tag} closed out of order"

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **required: str) -> list[Element]:
        """Return the elements of a tag with these attributes."""
        return [e for e in self.elements if e.tag == tag and all(e.attributes.get(k) == v for k, v in required.items())]

    def text(self, id_: str) -> str:
        """Return the text of the element with an id, with white space normalised."""
        return " ".join(next(e.text for e in self.elements if e.attributes.get("id") == id_).split())


def problems(page: Page) -> list[str]:
    """Return the violations of a self-contained and accessible page."""
    violations = []
    if len(page.all("h1")) != 1:
        violations.append("not one h1")
    levels = [int(e.tag[1]) for e in page.elements if e.tag in ("h1", "h2", "h3", "h4")]
    violations += ["a heading skips a level" for a, b in pairwise(levels) if b > a + 1]
    violations += ["img without alt" for image in page.all("img") if not image.attributes.get("alt")]
    tables, captions = page.all("table"), [e for e in page.all("caption") if e.inside[-1] == "table" and e.text.strip()]
    violations += [] if len(tables) == len(captions) else ["table without caption"]
    violations += ["th without scope" for head in page.all("th") if head.attributes.get("scope") not in ("col", "row")]
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    violations += ["duplicate id"] if len(ids) != len(set(ids)) else []
    for element in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            value = element.attributes.get(name) or "#"
            if not (value.startswith("data:image/") or (value.startswith("#") and (value == "#" or value[1:] in ids))):
                violations.append(f"{element.tag} {name} {value[:40]}")
    violations += ["script from elsewhere" for script in page.all("script") if "src" in script.attributes]
    violations += [
        f"style fetches {style.text}" for style in page.all("style") if "url(" in style.text or "@import" in style.text
    ]
    violations += [f"no {tag}" for tag in ("main", "nav", "header", "footer", "title") if len(page.all(tag)) != 1]
    return violations
