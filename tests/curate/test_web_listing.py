"""A web server's list of files is read as a browser reads it, and never for less than it is."""

import pytest

from lorakit.curate.web_listing import links_in
from lorakit.errors import LorakitError

APACHE = """<!DOCTYPE HTML><html><head><title>Index of /ä b</title></head><body>
<a href="?C=N;O=D">Name</a> <a href="/">Parent</a> <a href="../">..</a> <a href="../%C3%A4%20b/">itself</a> <a href="./">.</a>
<a href="a&amp;b.jpg">1</a> <A HREF='c d.jpg'>2</A> <a class=x href=%5Bk%5D.jpg>3</a> <a href="./é.jpg#top">4</a> <a href="/%c3%a4%20b/e(1).jpg">5</a>
<a href="q'uote.jpg">6</a> <a href="https://HOST/%C3%A4%20b/sub/">7</a> <a href="a&amp;b.jpg?download=1">1</a> <a href="p.jpg?sig=secret">8</a>
<a href="//other/%C3%A4%20b/x.jpg">0</a> <a href="http://host/x.jpg">0</a> <a href="mailto:me@host">0</a> <a href="http://[x/">0</a> <a name="y">0</a>
</body></html>"""


def test_links_are_taken_as_a_browser_takes_them_and_only_downwards():
    folder = "http://host/%C3%A4%20b/"
    wanted = ["%C3%A9.jpg", "%5Bk%5D.jpg", "a&b.jpg", "c%20d.jpg", "e(1).jpg", "q'uote.jpg", "sub/"]
    assert links_in(APACHE.encode(), folder) == (sorted(folder + name for name in wanted), 1)
    assert links_in(b"<a href='caf\xe9.jpg'>", "http://host/") == (["http://host/caf%C3%A9.jpg"], 0)
    assert links_in(b"\xff\xd8\xff no page", folder) == ([], 0)


def test_a_list_that_ends_within_itself_is_an_error():
    """A server that does not tell how long its answer is, and stops: else the photos behind would be taken to have gone."""
    with pytest.raises(LorakitError, match="ends within itself; nothing was changed"):
        links_in(APACHE.encode()[:600], "http://host/")
