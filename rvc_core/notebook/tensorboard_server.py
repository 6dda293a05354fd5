"""TensorBoard beside the notebook: a server of its own, shown inline, or by address, as the platform allows."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ..errors import ResourceError
from ..experiment import Experiment
from ..system.platforms import Platform, detect, started_ticks
from ..verdict.guide import SMOOTHING
from ..workspace.layout import Layout
from ..workspace.metrics import history

_START_SECONDS = 60.0
_RELOAD_SECONDS = 5
_HEIGHT_PIXELS = 720
_POINTS = 1_000_000  # all of them; with 0, "all" in its manual until lately, it shows none (its issue 5550)
_KAGGLE = "kkb-production.jupyter-proxy.kaggle.net"  # seen in public notebooks of 2026
# Under the name that this page was opened with: browsers deny storage, without which TensorBoard shows nothing, to
# a frame of another name, and 127.0.0.1 and localhost are two.
_FRAME = """<iframe id="%(id)s" title="TensorBoard" width="100%%" height="%(height)d" style="border:0"></iframe><script>
document.getElementById("%(id)s").src = "http://" + (window.location.hostname || "localhost") + ":%(port)d/" + %(view)s;
</script>"""
_SECRET = " (it holds the key of your session: give it to nobody, and press again to hide it)"
_LIGHTNING = "cloudspaces.litng.ai"
_TAGS = "^loss/g/(total|mel)|heldout|unlike"
# What the page reads of its address: the time-series view before #, the classic scalars view behind it.
GUIDE_VIEW = (
    f"?smoothing={SMOOTHING}&tagFilter={quote(_TAGS)}"
    f"#scalars&_smoothingWeight={SMOOTHING}&tagFilter={quote(_TAGS)}&_ignoreYOutliers=true"
)
HELP = """If the page stays empty or still:

- *No dashboards are active*: no point was written yet. The first comes at the end of the first epoch.
- Curves do not move: the gear at the top right, **Reload data**. The page begins without it.
- No curve: tick the run `.` on the left (`eval` holds unheard recordings), and empty the filter of tags.
- A blank frame or *403* on Colab: allow third-party cookies for this page.

The cell that watches the training draws the same curves without TensorBoard."""


def tensorboard(experiment: Experiment) -> str:
    """Show TensorBoard with the curves of an experiment, opened on the guide's view.

    Inline on Colab and in a local Jupyter; by address on Lightning.AI. On Kaggle a button shows the link, and hides it
    again: it holds the key of the session, and is therefore never saved in the notebook. The server goes on when cells
    are interrupted; asked again, the same one is shown.

    Returns
    -------
    str
        Its address on this machine.

    Raises
    ------
    ResourceError
        When TensorBoard does not start.
    """
    from IPython.display import Markdown, display

    layout, platform = experiment.layout, detect()
    port = start(layout, everywhere=platform.name == "lightning")
    steps = any(row["kind"] == "step" for row in history(layout))
    display(Markdown(HELP if steps else f"**Waiting for the first step.** {HELP}"))
    show(port, platform)
    return f"http://localhost:{port}/"


# -- the server ----------------------------------------------------------------------------------------------------
def start(layout: Layout, *, everywhere: bool = False) -> int:
    """Port of the TensorBoard of this experiment, which is started if it does not run yet.

    Parameters
    ----------
    everywhere : bool
        Answer on all addresses of the machine, for platforms whose proxy is another machine.
    """
    from tensorboard import manager

    for info in _running(layout):
        return info.port
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tensorboard.main",
                "--logdir",
                str(layout.root.absolute()),
                "--port",
                "0",
                "--samples_per_plugin",
                f"scalars={_POINTS}",
                "--reload_interval",
                str(_RELOAD_SECONDS),
                "--window_title",
                layout.name,
                *(["--bind_all"] if everywhere else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            for info in manager.get_all():
                if info.pid == server.pid:
                    return info.port
            time.sleep(0.2)
        server.terminate()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    raise ResourceError(
        f"TensorBoard does not start: {said[-1]}",
        hint="run: bash setup_env.sh; meanwhile the watch cell draws the same curves",
    )


def stop(layout: Layout) -> None:
    """End the TensorBoard of this experiment, if there is one."""
    for info in _running(layout):
        os.kill(info.pid, signal.SIGTERM)


def _running(layout: Layout) -> list[Any]:
    from tensorboard import manager

    return [
        info
        for info in manager.get_all()
        if info.logdir == str(layout.root.absolute()) and started_ticks(info.pid) is not None
    ]


# -- the page ------------------------------------------------------------------------------------------------------
def show(port: int, platform: Platform, environment: Mapping[str, str] = os.environ) -> None:
    """Display the page as this platform allows it."""
    from IPython.display import HTML, IFrame, display

    if platform.name == "colab":
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, path=f"/{GUIDE_VIEW}", height=str(_HEIGHT_PIXELS))
    elif platform.name == "kaggle":
        display(
            _kaggle_button(port)
            if environment["KAGGLE_KERNEL_RUN_TYPE"] == "Interactive"
            else HTML("TensorBoard can be opened only while you edit the notebook, not under Save &amp; Run All.")
        )
    elif platform.name == "lightning":
        host = environment.get("LIGHTNING_CLOUD_SPACE_HOST", f"{environment['LIGHTNING_CLOUD_SPACE_ID']}.{_LIGHTNING}")
        display(HTML(_link(f"https://{port}-{host}/{GUIDE_VIEW}")))
    elif "TENSORBOARD_PROXY_URL" in environment:
        address = environment["TENSORBOARD_PROXY_URL"].replace("%PORT%", str(port))
        display(IFrame(f"{address.rstrip('/')}/{GUIDE_VIEW}", "100%", _HEIGHT_PIXELS))
    else:
        display(
            HTML(
                _FRAME
                % {
                    "id": f"tensorboard-{uuid.uuid4()}",
                    "height": _HEIGHT_PIXELS,
                    "port": port,
                    "view": json.dumps(GUIDE_VIEW),
                }
            )
        )


def _link(address: str) -> str:
    return f'<a href="{html.escape(address)}" target="_blank">Open TensorBoard in a new tab</a>'


def _kaggle_button(port: int) -> Any:
    """A button that shows the link and hides it again: nothing holds the link unless somebody asks for it."""
    import ipywidgets

    button, place = ipywidgets.ToggleButton(description="Link to TensorBoard"), ipywidgets.HTML()

    def toggle(change: dict[str, Any]) -> None:
        place.value = _link(kaggle_address(port)) + _SECRET if change["new"] else ""

    button.observe(toggle, names="value")
    return ipywidgets.HBox([button, place])


def kaggle_address(port: int, base_urls: Iterable[str] | None = None) -> str:
    """Where Kaggle's proxy shows a port of this session.

    Raises
    ------
    ResourceError
        When no notebook server with a proxied address runs here.

    Examples
    --------
    >>> kaggle_address(6006, ["/k/123/secret/proxy/"]).partition("?")[0]
    'https://kkb-production.jupyter-proxy.kaggle.net/k/123/secret/proxy/proxy/6006/'
    """
    for base in list_addresses() if base_urls is None else base_urls:
        if match := re.match(r"/k/[^/]+/[^/]+", base):
            return f"https://{_KAGGLE}{match[0]}/proxy/proxy/{port}/{GUIDE_VIEW}"
    raise ResourceError("Kaggle's proxy was not found", hint="the watch cell draws the same curves")


def list_addresses() -> list[str]:
    """Where the notebook servers of this machine are, behind the platform's own address."""
    from jupyter_server.serverapp import list_running_servers

    return [server["base_url"] for server in list_running_servers()]
