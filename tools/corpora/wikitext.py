"""Wikitext to plain prose, one paragraph a line.

What is not running text is left out: tables, references, images, categories, headings, formulas, code, most
templates, list items that are no sentences, and the sections that close an article. Templates that stand in
sentences (`{{convert}}`, `{{lang}}`, ...) give the words a reader sees.
"""

# ruff: noqa: RUF001  (dashes and curly quotes are what Wikipedia writes)

import re
from collections.abc import Callable, Iterator
from typing import Any


def _words(separated_by_bars: str) -> frozenset[str]:
    return frozenset(separated_by_bars.split("|"))


DROPPED_SECTIONS = _words(
    "references|external links|see also|further reading|notes|bibliography|footnotes|citations|sources|"
    "works cited|notes and references|references and notes|notes and citations|references and sources|"
    "gallery|image gallery|general references|explanatory notes|primary sources|secondary sources|"
    "references and further reading"
)
DROPPED_TAGS = _words(
    "ref|references|table|gallery|math|chem|timeline|code|source|syntaxhighlight|pre|style|script|imagemap|"
    "score|graph|mapframe|templatestyles|hiero|categorytree|inputbox|ce|indicator"
)
DROPPED_LINKS = _words("file|image|media|category|template|special")
LIST_TAGS = _words("li|dd|dt")
# Templates whose first positional argument is the text a reader sees.
FIRST_ARGUMENT = _words(
    "small|smaller|big|nowrap|nobr|sc|smallcaps|abbr|tooltip|angbr|em|strong|noitalic|vr|vanchor|"
    "visible anchor|nihongo|val|sub|sup|ill|illm|interlanguage link|not a typo|sic|linktext|bold|italic|tq"
)
QUOTES = _words("quote|blockquote|cquote|quotation|centered")
FIXED = {
    "ndash": "–", "endash": "–", "en dash": "–", "–": "–",
    "mdash": "—", "em dash": "—", "—": "—",
    "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "spaced en dash": " – ",
    "spaced mdash": " — ",
    "'s": "'s", "'": "'", "nbsp": " ", "spaces": " ", "space": " ", "·": " · ", "•": " · ",
}  # fmt: skip
RANGE_WORDS = _words("-|–|to|and|x|by|or|×|&|+")

# Stand at the start of a line from a list item, and of one that wikitext shows as written (code, drawings).
_LIST_MARK = "\x00"
_PREFORMATTED_MARK = "\x01"
_SENTENCE_END = re.compile(r"[.!?…][)\"'”’]*$")
_INTERLANGUAGE = re.compile(r"^[a-z]{2,3}(-[a-z]+)*:")


def clean_wikitext(wikitext: str) -> str:
    """The prose of one article: paragraphs separated by a newline, no blank lines; empty if there is none."""
    import mwparserfromhell

    # style tags (bold and italic) are of no interest, and skipping them spares the parser's slowest search
    pieces = _render_sections(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    lines = (_clean_line(line) for line in _paragraphs("".join(pieces)))
    return "\n".join(line for line in lines if line)


def _paragraphs(text: str) -> Iterator[str]:
    """Joins the lines of a paragraph, which as in a browser ends at a blank line or a list item."""
    paragraph: list[str] = []
    for line in text.split("\n"):
        stands_alone = line.startswith((_LIST_MARK, _PREFORMATTED_MARK, "|", "!", "{|"))
        if paragraph and (stands_alone or not line.strip()):
            yield " ".join(paragraph)
            paragraph = []
        if stands_alone:
            yield line
        elif line.strip():
            paragraph.append(line)
    yield " ".join(paragraph)


def _render_sections(code: Any) -> Iterator[str]:
    """Text of the top-level nodes, without DROPPED_SECTIONS and the sections below them."""
    from mwparserfromhell.nodes import Heading, Text

    dropped_level = 0
    for node in code.nodes:
        if isinstance(node, Heading):
            if dropped_level == 0 or node.level <= dropped_level:
                title = node.title.strip_code().strip().lower()
                dropped_level = node.level if title in DROPPED_SECTIONS else 0
            yield "\n\n"
        elif dropped_level == 0:
            text = _render_node(node)
            # a line that begins with a space is preformatted
            yield text.replace("\n ", "\n" + _PREFORMATTED_MARK) if isinstance(node, Text) else text


def _render(code: Any) -> str:
    return "".join(_render_node(node) for node in code.nodes) if code is not None else ""


def _render_node(node: Any) -> str:
    renderer = _RENDERERS.get(type(node).__name__)
    return renderer(node) if renderer is not None else ""


def _render_link(node: Any) -> str:
    title = str(node.title).strip()
    prefix = title.partition(":")[0].strip().lower()
    if prefix in DROPPED_LINKS or (node.text is None and _INTERLANGUAGE.match(title)):
        return ""
    if node.text is None:
        return _render(node.title).strip().lstrip(":")
    return _render(node.text)


def _render_tag(node: Any) -> str:
    tag = str(node.tag).strip().lower()
    if tag in DROPPED_TAGS:
        return ""
    if tag in LIST_TAGS:
        # `* item` is a tag without contents before the text; `<li>item</li>` holds it
        return _LIST_MARK + _render(node.contents)
    if tag == "br":
        return " "
    if tag == "poem":
        return "\n\n" + _render(node.contents).replace("\n", "\n\n") + "\n\n"
    if tag in ("hr", "p", "blockquote", "div", "center"):
        return "\n\n" + _render(node.contents) + "\n\n"
    return _render(node.contents)


def _render_template(node: Any) -> str:
    name = str(node.name).strip().lower().replace("_", " ")
    if name in FIXED:
        return FIXED[name]
    arguments = [_render(parameter.value).strip() for parameter in node.params if not parameter.showkey]
    if name in QUOTES:
        named = next((p.value for p in node.params if str(p.name).strip() in ("text", "quote", "1")), None)
        return "\n\n" + _render(named).strip() + "\n\n"
    if not arguments:
        return ""
    if name in FIRST_ARGUMENT or name.startswith("lang-"):
        return arguments[0]
    if name in ("lang", "transl", "transliteration"):
        return arguments[-1] if len(arguments) > 1 else ""
    if name in ("convert", "cvt"):
        return _quantity(arguments)
    if name == "as of":
        return f"{'as' if node.has('lc') else 'As'} of {arguments[0]}"
    if name in ("circa", "c.", "ca."):
        return f"c. {arguments[0]}"
    if name in ("frac", "fraction", "sfrac"):
        return arguments[0] + " " + "/".join(arguments[1:]) if len(arguments) == 3 else "/".join(arguments)
    if name == "chem":
        return "".join(arguments)
    return ""


def _quantity(arguments: list[str]) -> str:
    """`5|km` to "5 km", `5|to|10|km` to "5 to 10 km": the number and unit as written, not converted."""
    end = 2
    while end < len(arguments) and arguments[end - 1] in RANGE_WORDS:
        end += 2
    return " ".join(arguments[:end])


_RENDERERS: dict[str, Callable[[Any], str]] = {
    "Text": lambda node: str(node.value),
    "HTMLEntity": lambda node: str(node.normalize()),
    "Wikilink": _render_link,
    "ExternalLink": lambda node: _render(node.title),
    "Tag": _render_tag,
    "Template": _render_template,
}

_SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"__[A-Z]+__|\[\[|\]\]|\{\{|\}\}|'{2,}|\[\s*\]", ""),
        # what dropped pronunciations, translations and references leave behind
        (r"\(\s*(?:[,;:/–-]|\b(?:or|and)\b|\s)+", "("),
        (r"(?:[,;:/]|\s)+\)", ")"),
        (r"[;,]\s*(?=[;,])", ""),
        (r"\(\s*\)", ""),
        (r"^[\s,;:.)]+", ""),
        (r"\s+", " "),
        (r" +([,.;:!?)])(?=$|[\s)\"'”’,;])", r"\1"),
    )
]


def _clean_line(line: str) -> str:
    is_list_item = _LIST_MARK in line
    line = line.replace(_LIST_MARK, " ").strip()
    if line.startswith((_PREFORMATTED_MARK, "|", "!", "{|")):
        # code, or a table that was never closed
        return ""
    for pattern, replacement in _SUBSTITUTIONS:
        line = pattern.sub(replacement, line)
    line = line.strip()
    if is_list_item and not _SENTENCE_END.search(line):
        return ""
    return line if any(character.isalpha() for character in line) else ""
