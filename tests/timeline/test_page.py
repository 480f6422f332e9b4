"""The page: complete in one file, the same without scripts, with every text escaped, and never too large."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from singleflight import single_flight_ttl, timeline
from singleflight.timeline.drawing import LANES, SHAPES, Drawing
from singleflight.timeline.page import page_of
from singleflight.timeline.words import BARS, LEGEND, duration

from .scripts import FIRST, Script

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</svg></title><script>x</script>",
    "]]><!-- -->&amp;&#0;",
    "\x00\x07\ud800\uffff\u202e\x1b[31m",
    "javascript:alert(1)",
]


class Reader(HTMLParser):
    """What is in a page: its elements with their attributes, and its text; fails if they do not nest."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def text(self):
        return "\n".join(self.texts)


def everything():
    """A script with a bar and a mark of every kind."""
    script = Script()
    script.say("fetch", 1.0, flight_id=FIRST)
    for number in range(3):
        script.say("wait", 1.1, f"w{number}", flight_id=FIRST)
    script.say("share", 2.0, "w0", flight_id=FIRST).say("timeout", 1.5, "w1")
    script.say("land", 2.0, flight_id=FIRST, followers=2, counted="fetches")
    script.say("hit", 3.0).say("stale_hit", 4.0, age=70.0)
    script.say("fetch", 4.0, "pool", flight="refresh", flight_id=FIRST + 1, background=True)
    script.say("land", 5.0, "pool", flight_id=FIRST + 1)
    for number, key in enumerate("BC", 2):
        script.say("fetch", 3.0, "one", key, flight="bulk", flight_id=FIRST + number, execution_id=FIRST + 2)
        script.say("land", 4.0, "one", key, flight_id=FIRST + number, error="OSError", counted="errors")
    script.say("shared_wait", 1.0, key="D", flight_id=FIRST + 4).say("put", 2.0).say("evict", 2.1)
    script.say("began", 1.0, key="E", call=1).say("degraded", 6.0, key=None).say("deadlock", 6.0)
    script.say("fetch", 9.0, "late", "F", flight="refresh", flight_id=FIRST + 9)
    return script


def drawn(script, **options):
    return page_of({"": script.chart(**options)}, "Calls over time")


def test_the_parts_of_a_page():
    """A heading, the numbers, a legend with words for all that is drawn, two drawings, and a table."""
    page = Reader(drawn(everything()))
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("h1", "table", "ul")] == [1, 1, 1]
    drawings = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"]
    assert [attrs["width"] for attrs in drawings] == ["1080", "380"]
    text = page.text()
    for kind, words in LEGEND:
        assert words in text, kind
    assert "calls received" in text
    assert "calls saved" in text
    assert "longest wait" in text


def test_everything_tells_what_it_is():
    """Each shape has a title in words, which browsers show when it is pointed at."""
    page = drawn(everything())
    shapes = re.findall(r'<g class="s">.*?</g>', page, re.DOTALL)
    assert len(shapes) > 20
    assert all(re.search(r"<title>[^<]+</title></g>$", shape) for shape in shapes)
    titles = "\n".join(re.findall(r"<title>([^<]+)</title>", page))
    for words in BARS.values():
        assert words in titles or words == BARS["degraded"]
    assert "The server was not asked, for 4 s" in titles
    assert "by w0" in titles
    assert "3 callers waited for it" not in titles
    assert "2 callers waited for it" in titles
    assert "one loader call for 2 keys" in titles
    assert "it was not over when the recording ended" in titles


def test_nothing_is_fetched_and_no_script_runs():
    """No address, no script, no event handler; the page itself forbids all of them."""
    page = drawn(everything())
    reader = Reader(page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "use"} & {
        tag for tag, _ in reader.elements
    }
    for _, attrs in reader.elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert re.findall(r"url\((?!#)|@import|https?:", page) == []
    assert "default-src 'none'" in page


def test_light_and_dark():
    """Both come from one file, as the reader prefers."""
    page = drawn(everything())
    assert page.count("prefers-color-scheme") == 2
    assert '<meta name="color-scheme" content="light dark">' in page


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_of_users_are_texts(name, tmp_path):
    """Keys, names of functions, threads, errors and titles are shown, and cannot be markup."""

    @single_flight_ttl(ttl=60, name=name)
    def price(symbol):
        return symbol

    seen = timeline.record(price)
    tracked = seen.track(lambda key: key, name=name)
    with seen:
        price(name), tracked(name)
    target = tmp_path / "page.html"
    timeline.save_together(target, {name: seen}, title=name)
    page = Reader(target.read_text(encoding="utf-8"))
    plain = Reader(drawn(everything()))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"h2"}
    names = {attribute for _, attrs in page.elements for attribute in attrs}
    assert names <= {attribute for _, attrs in plain.elements for attribute in attrs}
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", target.read_text("utf-8"))
    ElementTree.fromstring(timeline.svg_of({name: seen}, title=name))


def test_a_drawing_stands_alone():
    """The SVG has its style, its legend and a description, and is well-formed."""
    seen = timeline.record()
    with seen:
        pass
    root = ElementTree.fromstring(seen.to_svg(title="Nothing"))
    assert [child.tag.partition("}")[2] for child in root][:3] == ["title", "desc", "style"]
    drawing = Drawing({"one": everything().chart(), "two": everything().chart()}, 400)
    root = ElementTree.fromstring(drawing.svg(standalone=True))
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")]
    assert {"one", "two", "price", *(words for _, words in LEGEND)} <= set(texts)


@pytest.mark.parametrize("width", [200, 380, 1080])
def test_what_is_drawn_is_on_the_paper(width):
    """Every bar lies within the drawing, wherever its times are."""
    drawing = Drawing({"": everything().chart()}, width)
    root = ElementTree.fromstring(drawing.svg(standalone=True))
    _, _, right, bottom = map(float, root.attrib["viewBox"].split())
    rects = [element for element in root.iter() if element.tag.endswith("}rect") and "x" in element.attrib]
    assert len(rects) > 10
    for element in rects:
        x, y, wide, high = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= right + 2
        assert 0 <= y <= y + high <= bottom


def test_a_large_recording_is_drawn_as_a_whole():
    """Many keys, callers and hits: at most so many shapes, and the page says what was left out."""
    script, ident = Script(), FIRST
    for number in range(LANES + 30):
        key, at = f"key-{number}", number * 0.01
        ident += 1
        script.say("fetch", at, "leader", key, flight_id=ident)
        for follower in range(40):
            script.say("wait", at + 0.001 * follower, f"w{follower}", key, flight_id=ident)
        script.say("land", at + 1, "leader", key, flight_id=ident, followers=40)
        for follower in range(40):
            script.say("share", at + 1, f"w{follower}", key, flight_id=ident)
        for hit in range(100):
            script.say("hit", at + 1 + hit * 0.02, "reader", key)
    chart = script.chart(ended=20.0)
    drawing = Drawing({"": chart}, 1080)
    svg = drawing.svg()
    assert svg.count('<g class="s">') <= SHAPES
    assert len(svg) < 4_000_000
    said = " ".join(drawing.said)
    assert f"the {LANES} keys with most to show are drawn, and 30 more keys" in said
    assert "drawn as one, with their number" in said
    assert "drawn as an area" in said
    assert "28 more, 28 at a time" in svg
    page = page_of({"": chart}, "Many")
    assert "30 more keys" in Reader(page).text()
    assert f"{chart.totals.callers:,}" in page


def test_a_full_recording_says_so():
    """What was not kept is counted on the page, by kind."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with timeline.record(fetch, most=3) as seen:
        for key in range(20):
            fetch(key % 2)
    page = page_of({"": seen.chart()}, "Full")
    text = Reader(page).text()
    assert "The recording was full: 19 later events (18 hit, 1 land) are counted in the numbers" in text
    assert "20\ncalls received" in text


def test_several_timelines_have_one_scale():
    """The same length is the same time in all of them."""
    short, long = Script(), Script()
    short.say("fetch", 0.0, flight_id=FIRST).say("land", 1.0, flight_id=FIRST)
    long.say("fetch", 5.0, flight_id=FIRST).say("land", 15.0, flight_id=FIRST)
    svg = Drawing({"short": short.chart(), "long": long.chart(ended=20.0)}, 1080).svg()
    widths = [float(width) for width in re.findall(r'<rect class="call"[^>]* width="([\d.]+)"', svg)]
    assert widths[1] == pytest.approx(10 * widths[0], rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (1e-6, "0.001 ms"),
        (0.0996, "99.6 ms"),
        (0.99949, "999 ms"),
        (0.9996, "1 s"),
        (99.96, "100 s"),
    ],
)
def test_durations(seconds, words):
    """They have three digits, and no exponents."""
    assert duration(seconds) == words
