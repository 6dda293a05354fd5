# The whole journey, once, for all platforms and languages: build.py makes rvc_colab, rvc_kaggle and rvc_lightning of it,
# and the same in pt/. A text in braces is of rvc_core/notebook/*.toml; a cell with `platform` stands in that notebook alone.

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
from rvc_core import notebook; notebook.check()

# %% [markdown]
# {parameters}

# %% tags=["parameters"]
name = "my voice"   # {name}
dataset = ""        # {dataset}
songs = ""          # {songs}
storage = "auto"    # {storage}
settings = {}       # {settings}
begin_again = False # {again}

# %% [markdown]
# {begin}

# %%
from rvc_core import notebook

notebook.begin(name, dataset, songs, storage, settings, begin_again=begin_again);

# %% [markdown]
# {recordings}

# %%
from rvc_core import notebook

notebook.recordings()

# %% platform="colab"
from rvc_core import notebook

notebook.upload(wanted=False)   # {wanted}

# %% [markdown]
# {report}

# %%
from rvc_core import notebook

notebook.report()

# %% [markdown]
# {prepare_form}

# %%
from rvc_core import ExtractSettings, IndexSettings, PrepareSettings, notebook

notebook.form(PrepareSettings, ExtractSettings, IndexSettings);

# %% [markdown]
# {prepare}

# %%
from rvc_core import notebook

notebook.prepare()

# %% [markdown]
# {train_form}

# %%
from rvc_core import MirrorSettings, RuntimeSettings, TrainSettings, notebook

notebook.form(TrainSettings, MirrorSettings, RuntimeSettings);

# %% [markdown]
# {keep}

# %%
from rvc_core import notebook

notebook.parameters()

# %% [markdown]
# {start}

# %%
from rvc_core import notebook

notebook.start()

# %% [markdown]
# {tensorboard}

# %%
from rvc_core import notebook

notebook.tensorboard(notebook.lab());

# %% [markdown]
# {watch}

# %%
from rvc_core import notebook

notebook.watch_training()

# %% [markdown]
# {stop}

# %%
from rvc_core import notebook

notebook.stop()

# %% [markdown]
# {listen}

# %%
from rvc_core import notebook

notebook.listen()
notebook.choose("")   # {voice}

# %% [markdown]
# {export}

# %%
from rvc_core import notebook

notebook.export(download=False);   # {download}

# %% [markdown]
# {convert_form}

# %%
from rvc_core import notebook

notebook.songs()

# %%
from rvc_core import ConvertSettings, notebook

notebook.form(ConvertSettings);

# %% [markdown]
# {convert}

# %%
from rvc_core import notebook

notebook.convert();

# %% [markdown]
# {clean_up}

# %%
from rvc_core import notebook

notebook.clean_up(clips=False, checkpoints=False)

# %% [markdown] platform="lightning"
# {job}

# %% platform="lightning"
from rvc_core import notebook

notebook.job()
