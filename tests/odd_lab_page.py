"""Start JupyterLab on the folder it is started in, load lesson 00's page, print what it refers to.

How it works: run as a program inside a place without a network. Everything that the page names is
fetched; what lies on another machine is printed, not fetched. The server is ended at the end.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

TOKEN, LIMIT_S = "odd", 300
PAGE = "/lab/tree/notebooks/00_start_here.ipynb"


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(address: str) -> str:
    """What the server answers with."""
    request = Request(address, headers={"Authorization": f"token {TOKEN}"})
    with urlopen(request, timeout=60) as answer:
        return answer.read().decode("utf-8", "replace")


def wait_for(address: str) -> str:
    """The page, as soon as there is a server."""
    end_s = time.monotonic() + LIMIT_S
    while True:
        try:
            return get(address)
        except HTTPError:
            raise
        except (URLError, OSError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.5)


def main() -> None:
    """Print a line of JSON: the number of parts, those that are elsewhere, the lesson's cells."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
             f"--IdentityProvider.token={TOKEN}", f"--LabApp.default_url={PAGE}"]  # fmt: skip
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        page = wait_for(base + PAGE)
        parts = set(re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page))
        parts = {urljoin(base + PAGE, part) for part in parts if not part.startswith("data:")}
        elsewhere = sorted(part for part in parts if urlsplit(part).port != port)
        for part in parts - set(elsewhere):
            get(part)
        lesson = json.loads(get(f"{base}/api/contents/notebooks/00_start_here.ipynb"))
        found = {"parts": len(parts), "elsewhere": elsewhere}
        print(json.dumps({**found, "cells": len(lesson["content"]["cells"])}))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
