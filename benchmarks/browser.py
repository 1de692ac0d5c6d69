"""Chromium, driven by Playwright (pip install -e '.[browser]'), on a server's page."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox"]
WAIT = 60_000  # milliseconds; of a busy machine
# Keeps what a canvas of the conversation shows after each strip that is drawn onto it.
WATCH = """
window.seen = [];
const drawn = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...given) {
  drawn.apply(this, given);
  if (document.getElementById("log").contains(this.canvas)) window.seen.push(this.canvas.toDataURL());
};
"""


def opened(chromium, url: str, **context):
  """The page at an address, as one who has never been there sees it; closing `page.context` closes it. `page.wrong` is
  what it logs as an error or asks of elsewhere."""
  page = chromium.new_context(**context).new_page()
  page.set_default_timeout(WAIT)
  page.add_init_script(WATCH)
  page.wrong = []
  page.on("console", lambda message: message.type == "error" and page.wrong.append(message.text))
  page.on("pageerror", lambda error: page.wrong.append(str(error)))
  page.on("request", lambda one: one.url.startswith((url, "data:", "blob:")) or page.wrong.append(one.url))
  page.goto(url)
  page.wait_for_selector("#size option", state="attached")
  return page
