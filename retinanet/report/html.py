"""A page of HTML in one file, for readers with a wide or a narrow, a light or a dark screen."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape


class Html(str):
    """Text that is HTML already; any other text is escaped on its way into an element."""


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5b6873; --line: #e3e7eb;
  --ground: #ffffff; --tint: #f5f7f9; --bar: #cfdff5; }
@media (prefers-color-scheme: dark) { :root { --ink: #d9dfe5; --soft: #93a0ac; --line: #2b333b;
  --ground: #14181d; --tint: #1b2127; --bar: #24405f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 40px clamp(16px, 4vw, 48px) 64px; }
h1 { margin: 0 0 4px; font-size: 28px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 56px 0 8px; font-size: 20px; }
code { font: 0.9em ui-monospace, monospace; white-space: nowrap; color: var(--ink); }
p { margin: 0 0 16px; max-width: 76ch; color: var(--soft); }
img { display: block; max-width: 100%; height: auto; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 6px; font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
figcaption b, p b { color: var(--ink); font-weight: 600; unicode-bidi: isolate; }
dl { display: grid; margin: 24px 0 0; }
.numbers { grid-template-columns: repeat(auto-fit, minmax(min(45%, 190px), 1fr)); gap: 1px;
  border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.numbers div { padding: 14px 16px; box-shadow: 0 0 0 1px var(--line); }
.numbers dt { font-size: 13px; color: var(--soft); }
.numbers dd { margin: 0; font-size: 26px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.facts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 4px 40px;
  font-size: 14px; }
.facts div { display: flex; gap: 12px; }
.facts dt { flex: 0 0 96px; color: var(--soft); }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.charts, .pictures { display: grid; gap: 32px 40px; margin-top: 20px; align-items: start; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.charts img { width: 100%; max-width: 620px; }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 24px; }
.pictures img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; border-radius: 4px;
  background: var(--tint); }
.photo > div { position: relative; }
.photo svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.photo rect { fill: none; stroke: currentColor; stroke-width: 3; }
.photo [data-found] rect { stroke-width: 1.5; }
.photo text { fill: currentColor; stroke: #000; stroke-width: 3; paint-order: stroke;
  font: 600 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.photo [data-found] text { font-size: 10px; stroke-width: 2; }
.photo [hidden], .truth:not(.missed) text { display: none; }
.truth { color: #fff; }
.truth .dashes { color: #000; stroke-dasharray: 7; }
.truth:not(.missed) { opacity: 0.45; }
.tally { display: block; }
.tally span + span::before, .told span + span::before { content: " \\00b7  "; }
.slider { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: center;
  gap: 4px 20px; margin-top: 32px; padding: 12px 0; background: var(--ground);
  border-bottom: 1px solid var(--line); }
.slider input { flex: 1 1 240px; min-width: 0; accent-color: #4a90d9; }
.slider b, .slider output { font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { display: flex; flex-wrap: wrap; gap: 16px 24px; margin-top: 20px; }
.wide figure { flex: 0 1 auto; max-width: 100%; overflow-x: auto; }
.wide img { width: 840px; max-width: none; }
.scroll { overflow: auto; max-height: 85vh; margin-top: 16px; }
thead { position: sticky; top: 0; z-index: 1; background: var(--ground); }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 11px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--soft); vertical-align: bottom; }
th[colspan] { padding-bottom: 0; border: 0; text-align: center; }
tr > :first-child { position: sticky; left: 0; padding-left: 0; background: var(--ground);
  text-align: left; white-space: normal; overflow-wrap: break-word; color: var(--ink);
  min-width: min(34vw, 150px); max-width: min(42vw, 320px); }
thead tr > :first-child { color: var(--soft); }
small { font-size: 12px; color: var(--soft); }
.numbers small { display: block; }
.sortable thead tr:last-child th { cursor: pointer; }
th[aria-sort=descending]::after { content: " \\2193"; }
th[aria-sort=ascending]::after { content: " \\2191"; }
tfoot td { border-bottom: 0; font-weight: 600; color: var(--ink); }
i.swatch { display: inline-block; width: 10px; height: 10px; margin-right: 8px;
  border-radius: 2px; }
i.bar { display: inline-block; width: 48px; height: 8px; margin-right: 10px; border-radius: 2px;
  background: var(--tint); }
i.bar i { display: block; height: 8px; border-radius: 2px; background: var(--bar); }
@media (max-width: 600px) { main { padding-top: 24px; } h1 { font-size: 23px; }
  h2 { margin-top: 40px; } th, td { padding: 5px 8px; } }
"""

# How every page begins, and no other file.
BEGINNING = b"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="generator" content="retinanet">
"""

RENEWED_EVERY = 60  # seconds, of a page in a browser whose file is written again and again


def page(title: str, sections: Iterable[Html], *, renewed: bool = False, script: str = "") -> bytes:
    """A whole file, which needs no other; a renewed one is loaded again and again.

    A browser asks no network for anything in it, and runs no script but this one.
    """
    only = f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {only}"
    content = joined(
        element("meta", http_equiv="Content-Security-Policy", content=allowed),
        *([REFRESH] if renewed else []),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE)),
        element("main", *sections),
        *([element("script", Html(script))] if script else []),
    )
    return BEGINNING + content.encode(errors="xmlcharrefreplace")  # half of a UTF-16 pair


def element(tag: str, *content: str, **attributes: str) -> Html:
    """`<tag attribute="...">content</tag>`; `class_` stands for class, `http_equiv` for a dash."""
    names = (name.rstrip("_").replace("_", "-") for name in attributes)
    values = (escape(value) for value in attributes.values())
    opening = [tag, *(f'{name}="{v}"' for name, v in zip(names, values, strict=True))]
    closing = "" if tag in ("meta", "img", "input") else f"</{tag}>"
    return Html(f"<{' '.join(opening)}>{joined(*content)}{closing}")


def joined(*content: str) -> Html:
    """Text and HTML, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


REFRESH = element("meta", http_equiv="refresh", content=str(RENEWED_EVERY))
"""Makes a browser load the page again."""


def section(title: str, *content: Html) -> Html:
    """A part of the page under its heading."""
    return element("section", element("h2", title), *content)


def picture(data: bytes, kind: str, alt: str, caption: Sequence[str] = ()) -> Html:
    """A picture that is part of the file.

    Args:
        data: as in a file of its own.
        kind: `svg+xml`, `png`, `jpeg`.
        alt: what it shows, for those who do not see it.
        caption: text and HTML that stand below it.
    """
    below = [element("figcaption", *caption)] if caption else []
    return element("figure", embedded(data, kind, alt), *below)


def embedded(data: bytes, kind: str, alt: str) -> Html:
    """A picture alone; arguments as `picture`."""
    return element("img", src=f"data:image/{kind};base64,{b64encode(data).decode()}", alt=alt)


def definitions(values: Mapping[str, str], kind: str) -> Html:
    """Names and values, in the style of `kind`: `numbers` are large, `facts` are small."""
    pairs = (
        element("div", element("dt", name), element("dd", value)) for name, value in values.items()
    )
    return element("dl", *pairs, class_=kind)


def table(
    groups: Sequence[tuple[str, int]],
    head: Sequence[str],
    body: Iterable[Sequence[str]],
    foot: Sequence[str] = (),
) -> Html:
    """Rows of text and HTML, numbers to the right; it scrolls where it is wider than the screen.

    Args:
        groups: names that stand above several columns, and how many of them; perhaps none.
        head: names of the columns.
        body: rows of cells.
        foot: cells of the last row.
    """

    def row(cells: Sequence[str], tag: str = "td") -> Html:
        return element("tr", *(element(tag, cell) for cell in cells))

    above = (element("th", name, colspan=str(columns)) for name, columns in groups)
    rows = (
        element("thead", element("tr", *above), row(head, "th")),
        element("tbody", *map(row, body)),
        element("tfoot", row(foot)),
    )
    return element("div", element("table", *rows, class_="sortable"), class_="scroll")
