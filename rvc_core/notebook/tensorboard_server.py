"""TensorBoard beside the notebook: a server of its own, shown inline, or by address, as the platform allows.

It answers on this machine only; on Lightning.AI, whose addresses lead here from another machine, on all of its
addresses. Only a server that this module started for this user is ever shown or ended.
"""

import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ResourceError, StageOrderError
from ..experiment import Experiment
from ..system.platforms import Platform, detect, started_ticks
from ..verdict.guide import SMOOTHING
from ..workspace.layout import Layout
from ..workspace.metrics import history
from .texts import say

_START_SECONDS = 60.0
_END_SECONDS = 5.0
_MODULE = ("-m", "tensorboard.main")
_RELOAD_SECONDS = 5
_HEIGHT_PIXELS = 720
_POINTS = 1_000_000  # all of them; with 0, "all" in its manual until lately, it shows none (its issue 5550)
_KAGGLE = "kkb-production.jupyter-proxy.kaggle.net"  # seen in public notebooks of 2026
# Under the name that this page was opened with: browsers deny storage, without which TensorBoard shows nothing, to
# a frame of another name, and 127.0.0.1 and localhost are two.
_FRAME = """<iframe id="%(id)s" title="TensorBoard" width="100%%" height="%(height)d" style="border:0"></iframe><script>
document.getElementById("%(id)s").src = "http://" + (window.location.hostname || "localhost") + ":%(port)d/" + %(view)s;
</script>"""
_LIGHTNING = "cloudspaces.litng.ai"
_TAGS = "^loss/g/(total|mel)|heldout|unlike"
# What the page reads of its address: the time-series view before #, the classic scalars view behind it.
GUIDE_VIEW = (
    f"?smoothing={SMOOTHING}&tagFilter={quote(_TAGS)}"
    f"#scalars&_smoothingWeight={SMOOTHING}&tagFilter={quote(_TAGS)}&_ignoreYOutliers=true"
)


def tensorboard(experiment: Experiment) -> str:
    """Show TensorBoard with the curves of an experiment, opened on the guide's view.

    Inline on Colab and in a local Jupyter; by address on Lightning.AI. On Kaggle a button shows the link, and hides it
    again: it holds the key of the session, and is therefore never saved in the notebook. The server goes on when cells
    are interrupted and the notebook is closed, until `stop`. Asked again, the same one is shown.

    Returns
    -------
    str
        Its address on this machine.

    Raises
    ------
    StageOrderError
        Before there is anything to show.
    ResourceError
        When TensorBoard does not start.
    """
    from IPython.display import Markdown, display

    layout, platform = experiment.layout, detect()
    if not layout.root.is_dir():
        raise StageOrderError(f"{layout.name!r} has no training to show yet", hint="run the cell Start")
    everywhere = platform.name == "lightning"
    port = start(layout, everywhere=everywhere)
    print(say("tensorboard_everywhere" if everywhere else "tensorboard_here", port=port))
    steps = any(row["kind"] == "step" for row in history(layout))
    display(Markdown(("" if steps else f"**{say('tensorboard_waiting')}** ") + say("tensorboard_help")))
    show(port, platform)
    return f"http://localhost:{port}/"


# -- the server ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Server:
    """A TensorBoard that `start` started for this user: what its own command line says."""

    process: int
    logdir: Path
    port: int


def start(layout: Layout, *, everywhere: bool = False) -> int:
    """Port of the TensorBoard of this experiment, which is started if it does not run yet.

    Parameters
    ----------
    everywhere : bool
        Answer on all addresses of the machine, for platforms whose proxy is another machine.
    """
    for there in _ours([layout.root]):
        if there.logdir.is_dir():
            return there.port
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [
                *(sys.executable, *_MODULE, "--logdir", str(layout.root.absolute()), "--port", str(port)),
                *("--samples_per_plugin", f"scalars={_POINTS}", "--reload_interval", str(_RELOAD_SECONDS)),
                *("--window_title", layout.name, *(["--bind_all"] if everywhere else ["--host", "localhost"])),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            if _listens(server.pid, port):
                return port
            time.sleep(0.2)
        server.terminate()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    raise ResourceError(
        f"TensorBoard does not start: {said[-1]}",
        hint="run: bash setup_env.sh; meanwhile the watch cell draws the same curves",
    )


def _listens(process: int, port: int) -> bool:
    """Whether a process answers at a port. The system is asked: anybody may write TensorBoard's own list."""
    import psutil

    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return any((one.pid, one.laddr.port) == (process, port) for one in listening)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def stop(*places: Path) -> int:
    """End the servers that were started for the experiments in these folders, or below; how many there were.

    Another program's TensorBoard, and another user's, go on.
    """
    ending = _ours(places)
    for server in ending:
        os.kill(server.process, signal.SIGTERM)
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline and any(started_ticks(server.process) is not None for server in ending):
        time.sleep(0.05)
    return len(ending)


def _ours(places: Iterable[Path]) -> list[Server]:
    """The running servers that `start` started for this user, for these folders or what is below them.

    The processes are asked, and not TensorBoard's list of them: everybody on the machine may write to that, and it is
    lost with the folder for temporary files.
    """
    import psutil

    roots, found = [place.absolute() for place in places], []
    for one in psutil.process_iter(["pid", "uids", "cmdline"]):  # nothing of what is hidden from this user
        match one.info["cmdline"]:
            case [_, "-m", "tensorboard.main", "--logdir", logdir, "--port", port, *_] if (
                one.info["uids"].real == os.getuid() and port.isdecimal()
            ):
                if any(Path(logdir).is_relative_to(root) for root in roots):
                    found.append(Server(one.pid, Path(logdir), int(port)))
    return found


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
            else HTML(html.escape(say("tensorboard_unattended")))
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
    return f'<a href="{html.escape(address)}" target="_blank">{html.escape(say("tensorboard_open"))}</a>'


def _kaggle_button(port: int) -> Any:
    """A button that shows the link and hides it again: nothing holds the link unless somebody asks for it."""
    import ipywidgets

    button, place = ipywidgets.ToggleButton(description=say("tensorboard_link")), ipywidgets.HTML()

    def toggle(change: dict[str, Any]) -> None:
        place.value = (
            f"{_link(kaggle_address(port))} ({html.escape(say('tensorboard_secret'))})" if change["new"] else ""
        )

    button.observe(toggle, names="value")
    return ipywidgets.HBox([button, place])


def kaggle_address(port: int) -> str:
    """Where Kaggle's proxy shows a port of this session.

    Raises
    ------
    ResourceError
        When no notebook server with a proxied address runs here.
    """
    for base in list_addresses():
        if match := re.match(r"/k/[^/]+/[^/]+", base):
            return f"https://{_KAGGLE}{match[0]}/proxy/proxy/{port}/{GUIDE_VIEW}"
    raise ResourceError("Kaggle's proxy was not found", hint="the watch cell draws the same curves")


def list_addresses() -> list[str]:
    """Where the notebook servers of this machine are, behind the platform's own address."""
    from jupyter_server.serverapp import list_running_servers

    return [server["base_url"] for server in list_running_servers()]
