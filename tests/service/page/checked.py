"""A page of HTML looked at as a screen reader's user would: names, labels, headings, landmarks, tables."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "br", "hr", "img", "option"}


class Page(HTMLParser):
    """What stands in a page, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.controls: list[tuple[str, dict[str, str]]] = []
        self.headings: list[int] = []
        self.landmarks: list[str] = []
        self.links: list[dict[str, str]] = []
        self.refers: list[str] = []
        self.tables = self.captions = self.loose_headers = self.forms_without_token = 0
        self._open: list[str] = []
        self._form: dict[str, str] | None = None
        self._token = False
        self.unclosed: list[str] = []
        self.language = ""
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("aria-describedby", "aria-labelledby"):
            self.refers += given.get(name, "").split()
        if tag == "html":
            self.language = given.get("lang", "")
        if tag == "label" and "for" in given:
            self.labelled.add(given["for"])
        if tag in ("input", "select", "textarea", "button") and given.get("type") != "hidden":
            self.controls.append((tag, given | {"_in_label": str("label" in self._open)}))
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if tag in ("main", "nav", "header"):
            self.landmarks.append(tag)
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.loose_headers += tag == "th" and "scope" not in given
        if tag == "a":
            self.links.append(given)
        if tag == "form":
            self._form, self._token = given, False
        if tag == "input" and given.get("name") == "csrf_token":
            self._token = True
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._form is not None:
            posts = self._form.get("method", "get").lower() == "post"
            self.forms_without_token += posts and not self._token and self._form.get("action") != "/login"
            self._form = None
        if tag in _VOID:
            return
        if not self._open or self._open[-1] != tag:
            self.unclosed.append(tag)
            return
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def wrong_with(text: str, *, whole: bool = True) -> list[str]:
    """What a page does wrong; ``whole`` is False for a fragment."""
    page = Page(text)
    found = [f"<{tag}> does not nest" for tag in page.unclosed] + [f"<{tag}> is not closed" for tag in page._open]
    found += [f"the id {name} is there twice" for name in set(page.ids) if page.ids.count(name) > 1]
    found += [f"nothing has the id {name}" for name in page.refers if name not in page.ids]
    for tag, given in page.controls:
        named = given.get("aria-label") or given.get("id") in page.labelled or given["_in_label"] == "True"
        if not named and tag != "button":
            found.append(f"<{tag} name={given.get('name')}> has no label")
    if page.loose_headers:
        found.append(f"{page.loose_headers} table headers have no scope")
    if page.forms_without_token:
        found.append("a form has no token")
    if whole:
        found += [] if page.language == "en" else ["no language"]
        found += [] if page.headings.count(1) == 1 else [f"{page.headings.count(1)} headings of the first level"]
        found += [] if page.landmarks.count("main") == 1 else ["no main landmark"]
        jumps = [(a, b) for a, b in zip(page.headings, page.headings[1:], strict=False) if b > a + 1]
        found += [f"a heading of level {b} after one of {a}" for a, b in jumps]
        found += (
            [] if any(link.get("href") == "#main" for link in page.links) else ["no link that skips to the content"]
        )
    return found
