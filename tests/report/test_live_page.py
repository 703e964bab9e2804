"""A served page draws what is new where the reader is, and says when there is nothing more to come."""

import http.server
import json
import threading
import time

import pytest
from browser import CHROMIUM, Browser
from records import record

from naskd.report.html import SCRIPTS, assembled, page_data

IMPATIENT = "{ const wait = setTimeout; window.setTimeout = (work, ms) => wait(work, Math.min(ms, 60)); }"


class Served:
    """A server that says what it is told to."""

    def __init__(self):
        self.data, self.state = {}, {}
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                kind, text = "application/json", json.dumps(served.data)
                if self.path == "/state.json":
                    text = json.dumps({**served.state, "stamp": served.data["stamp"]})
                elif self.path == "/":
                    kind, text = "text/html", assembled("live", served.data, SCRIPTS, live=True)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def holds(self, n, state, title):
        """Let it hold a record of `n` trials."""
        self.data = {**page_data(record(n, seed=1)), "stamp": str(n), "up": None}
        self.state = {"state": state, "title": title, "lines": ["trial 9: epoch 1 of 2"]}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def wait_until(browser, condition):
    until = time.monotonic() + 20
    while not browser.run(condition):
        assert time.monotonic() < until, condition
        time.sleep(0.02)


def test_new_trials_are_drawn_where_the_reader_is():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: what the page's script does is not checked")
    served = Served()
    served.holds(40, "searching", "Searching: 40 of 60 trials")
    said = "document.getElementById('live').innerText.includes"
    with Browser() as browser:
        browser.open(f"http://127.0.0.1:{served.server.server_port}/", before=IMPATIENT)
        wait_until(browser, f"{said}('Searching: 40 of 60 trials')")
        wait_until(browser, f"{said}('trial 9: epoch 1 of 2')")
        browser.run("document.querySelector('.budget input').focus()")
        browser.run("document.execCommand('selectAll'), document.execCommand('insertText', false, '20k')")
        browser.key("Enter")
        browser.run("document.querySelector('input[type=range]').focus(), scrollTo(0, 700)")
        kept = "[scrollY, location.hash, document.activeElement.type, document.querySelector('.budget input').value]"
        before = browser.run(kept)
        number = "document.querySelectorAll('#designs-choice-by-choice .strand').length - 3"  # of the legend
        assert browser.run(number) == 40
        served.holds(55, "searching", "Searching: 55 of 60 trials")
        wait_until(browser, f"({number}) === 55")
        assert browser.run(kept) == before
        assert (before[0], before[2], before[3]) == (700, "range", "20.0 k")
        # Who writes is not disturbed.
        browser.run("document.querySelector('.budget input').focus()")
        served.holds(60, "searching", "Searching: 60 of 60 trials")
        wait_until(browser, f"{said}('Searching: 60 of 60 trials')")
        assert browser.run(number) == 55
        browser.run("document.activeElement.blur()")
        wait_until(browser, f"({number}) === 60")
        served.holds(60, "idle", "No search runs now.")
        wait_until(browser, f"{said}('The search has ended.')")
        assert browser.errors == []
        served.close()
        wait_until(browser, f"{said}('The server does not answer')")
