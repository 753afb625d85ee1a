"""A page in headless Chromium, in a frame of any width: windows of Chromium are at least 500 pixels wide."""

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.page import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=20000", "--window-size=2000,2000", "--dump-dom",
)  # fmt: skip


def evaluated(page: str, script: str, *, width: int, folder: Path) -> tuple[dict[str, Any], str]:
    """Open a page of this width, run a script at its end, and return its object `state` and messages of the console."""
    assert CHROMIUM is not None
    end = (
        f"<script>{{ const state = {{}}; {script}\n"
        "parent.document.getElementById('state').textContent = JSON.stringify(state); }</script></body>"
    )
    source = html.escape(page.replace("</body>", end), quote=True)
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{source}"></iframe>'
    file = folder / f"frame-{width}.html"
    file.write_text(f'<!DOCTYPE html><html><body><pre id="state"></pre>{frame}</body></html>', encoding="utf-8")
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder}/profile-{width}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    (state,) = [element for element in Page(done.stdout).elements if element.attributes.get("id") == "state"]
    return json.loads(state.text), console
