# The whole journey, once, for all platforms and languages: build.py makes rvc_colab, rvc_kaggle and rvc_lightning of it,
# and the same in pt/. A text in braces is of rvc_core/ui/*.toml; a cell with `platform` stands in that notebook alone.

# %% [markdown]
# {title}

# %% [markdown]
# {install}

# %%
import os, pathlib, subprocess, sys

PROJECT = ""   # {project}
if "://" in PROJECT:
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", PROJECT, "rvc_core_project"])
os.environ |= {"RVC_PYTHON": sys.executable, "RVC_USE_CURRENT_ENV": "1", "RVC_LANG": os.environ.get("RVC_LANG", "{code}")}
search = ["find", PROJECT or ".", *PLACES, "-maxdepth", "4", "-name", "setup_env.sh"]
for setup in map(pathlib.Path, subprocess.run(search, capture_output=True, text=True).stdout.splitlines()[:1]):
    bundle = [] if (setup.parent / "rvc_core").is_dir() else ["--offline", setup.parent]
    subprocess.run(["bash", setup, *bundle], check=True)
    sys.path.append(str(setup.parent.resolve()))
from rvc_core import ui; ui.check()

# %% [markdown]
# {parameters}

# %% tags=["parameters"]
name = "my voice"   # {name}
dataset = ""        # {dataset}
songs = ""          # {songs}
storage = "auto"    # {storage}
settings = {}       # {settings}

# %% [markdown]
# {begin}

# %%
from rvc_core import ui

ui.begin(name, dataset, songs, storage, settings);

# %% [markdown]
# {recordings}

# %%
from rvc_core import ui

ui.recordings()

# %% platform="colab"
from rvc_core import ui

ui.upload(wanted=False)   # {wanted}

# %% [markdown]
# {report}

# %%
from rvc_core import ui

ui.report()

# %% [markdown]
# {prepare_form}

# %%
from rvc_core import ExtractSettings, IndexSettings, PrepareSettings, ui

ui.form(PrepareSettings, ExtractSettings, IndexSettings);

# %% [markdown]
# {prepare}

# %%
from rvc_core import ui

ui.prepare()

# %% [markdown]
# {train_form}

# %%
from rvc_core import MirrorSettings, RuntimeSettings, TrainSettings, ui

ui.form(TrainSettings, MirrorSettings, RuntimeSettings);

# %% [markdown]
# {start}

# %%
from rvc_core import ui

ui.start()

# %% [markdown]
# {tensorboard}

# %%
from rvc_core import ui

ui.tensorboard(ui.lab());

# %% [markdown]
# {watch}

# %%
from rvc_core import ui

ui.watch_training()

# %% [markdown]
# {stop}

# %%
from rvc_core import ui

ui.stop()

# %% [markdown]
# {listen}

# %%
from rvc_core import ui

ui.listen()
ui.choose("")   # {voice}

# %% [markdown]
# {export}

# %%
from rvc_core import ui

ui.export(download=False);   # {download}

# %% [markdown]
# {convert_form}

# %%
from rvc_core import ui

ui.songs()

# %%
from rvc_core import ConvertSettings, ui

ui.form(ConvertSettings);

# %% [markdown]
# {convert}

# %%
from rvc_core import ui

ui.convert();

# %% [markdown]
# {clean_up}

# %%
from rvc_core import ui

ui.clean_up(clips=False, checkpoints=False)

# %% [markdown] platform="lightning"
# {job}

# %% platform="lightning"
from rvc_core import ui

ui.job()
