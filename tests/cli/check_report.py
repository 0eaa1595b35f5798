"""Checks a report as a page: form, safety, accessibility. Usage: check_report.py FILE.html [+WORDS ...] [-WORDS ...]
+WORDS must be in its text, -WORDS must not. Only Python's own library."""
import base64
import hashlib
import html.parser
import re
import sys
import xml.etree.ElementTree as tree

path, words = sys.argv[1], sys.argv[2:]
raw = open(path, "rb").read()
page = raw.decode("utf-8")  # strict
failed = []


def check(ok, *what):
    if not ok:
        failed.append(" ".join(str(w) for w in what))


# ---- as XML and as HTML ----
root = tree.fromstring(raw)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.text, self.data = [], [], [], {}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), list(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), list(self.stack)))

    def handle_endtag(self, tag):
        check(self.stack and self.stack[-1] == tag, "closing", tag, "at", self.getpos(), "while open:", self.stack[-3:])
        if self.stack:
            self.stack.pop()

    def handle_data(self, data):
        inside = self.stack[-1] if self.stack else ""
        self.data.setdefault(inside, []).append(data)
        if inside not in ("script", "style"):
            self.text.append(data)

    def handle_comment(self, data):
        check(False, "a comment:", data[:50])


p = Parser()
p.feed(page)
p.close()
check(not p.stack, "left open:", p.stack)
check(page.startswith("<!DOCTYPE html>\n"), "no doctype")
tags = p.tags
named = lambda name: [t for t in tags if t[0] == name]

# ---- nothing that acts or loads ----
allowed = set("""html head meta title style body a header h1 h2 h3 h4 nav ul li main section p dl dt dd div table caption span thead tbody tr th td
figure figcaption svg g path rect use defs symbol desc line circle polyline polygon clippath lineargradient stop text tspan pattern
em strong mark pre article details summary script image mask filter fecolormatrix""".split())
check({t[0] for t in tags} <= allowed, "unexpected elements:", {t[0] for t in tags} - allowed)
check(len(named("script")) == 1, len(named("script")), "scripts")
for tag, attributes, _ in tags:
    for name, value in attributes.items():
        check(not name.startswith("on"), tag, "has", name)
        if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
            check(name != "src" and (value.startswith("#") or value.startswith("data:image/png;base64,")), tag, name, value[:60])
        if not name.startswith("xmlns"):
            for place in re.findall(r"url\(([^)]*)\)", value or ""):
                check(place.strip("'\"").startswith("#"), "loads", place)
style, script = "".join(p.data["style"]), "".join(p.data["script"])
check("url(" not in style and "@import" not in style, "the style sheet loads something")
digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
policy = [t[1]["content"] for t in named("meta") if t[1].get("http-equiv") == "Content-Security-Policy"]
check(len(policy) == 1 and "default-src 'none'" in policy[0] and f"'sha256-{digest}'" in policy[0], "policy", policy)
for character in page:
    n = ord(character)
    bad = (n < 32 and character not in "\n\t") or 0x7F <= n < 0xA0 or n in (0x61C, 0xFEFF) or 0x200B <= n <= 0x200F
    bad = bad or 0x2028 <= n <= 0x202E or 0x2060 <= n <= 0x206F or n & 0xFFFE == 0xFFFE
    check(not bad, f"U+{n:04X} stands in the page")

# ---- accessible ----
check(named("html")[0][1].get("lang") == "en", "no language")
check("".join(p.data["title"]).strip(), "no title")
for name in ("header", "nav", "main", "h1"):
    check(len(named(name)) == 1, len(named(name)), name)
level = 0
for tag, _, _ in tags:
    if re.fullmatch("h[1-6]", tag):
        check(int(tag[1]) <= level + 1, f"h{level} is followed by {tag}")
        level = int(tag[1])
ids = [t[1]["id"] for t in tags if "id" in t[1]]
check(len(ids) == len(set(ids)), "ids stand twice:", {i for i in ids if ids.count(i) > 1})
for tag, attributes, _ in tags:
    for name in ("href", "xlink:href"):
        if attributes.get(name, "").startswith("#"):
            check(attributes[name][1:] in ids, "no target for", attributes[name])
    if attributes.get("tabindex"):
        check(attributes["tabindex"] == "0" and attributes.get("aria-label") and attributes.get("role"), tag, "takes the keyboard without a name")
check(named("a")[0][1].get("class") == "skip", "the first link does not skip to the report")
SVG = "{http://www.w3.org/2000/svg}"
for svg in root.iter(SVG + "svg"):
    check(svg.get("role") == "img", "an SVG without role=img")
    for name in ("title", "desc"):
        check((svg.findtext(SVG + name) or "").strip(), "an SVG without", name)
for table in root.iter("table"):
    columns = len(table.find("thead/tr"))
    check((table.findtext("caption/span") or "").strip(), "a table without caption")
    check(all(cell.get("scope") for cell in table.iter("th")), "a th without scope")
    check(all(len(row) == columns for row in table.iter("tr")), "rows of different length")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


pairs = 0
for rule in re.findall(r"\{([^{}]*)\}", style):
    ink = re.search(r"(?<![-a-z])color: (#[0-9a-f]{6})", rule)
    paper = re.search(r"background: (#[0-9a-f]{6})", rule)
    for behind in [paper.group(1)] if paper else ["#ffffff", "#eaf1f8"]:
        if ink:
            a, b = sorted((luminance(ink.group(1)), luminance(behind)))
            check((b + 0.05) / (a + 0.05) >= 4.5, ink.group(1), "on", behind, f"has a contrast of {(b + 0.05) / (a + 0.05):.2f}")
            pairs += 1
check(pairs >= 10, "only", pairs, "pairs of colours found")

# ---- words ----
text = " ".join("".join(p.text).split())
for word in words:
    check((word[1:] in text) == (word[0] == "+"), "missing:" if word[0] == "+" else "must not say:", word[1:])
for line in list(dict.fromkeys(failed))[:20]:
    print(f"{path}: {line}")
sys.exit(bool(failed))
