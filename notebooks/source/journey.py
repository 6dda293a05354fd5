# The whole journey, once, for all platforms and languages: build.py makes rvc_colab, rvc_kaggle and rvc_lightning of it,
# and the same in pt/. A text in braces is of rvc_core/notebook/*.toml; a cell with `platform` stands in that notebook
# alone, and so does a line that ends with `#@colab`. The first line and the form of a cell on Colab are made by build.py.

# %% [markdown]
# {title}

# %% [markdown]
# {install}

# %%
PROJECT = "{repository}"   # {project} #@param {type:"string"}
measure_gpu = False  # {measure} #@param {type:"boolean"}
import contextlib, importlib.util, os, re, shutil, subprocess, sys
os.environ |= {"RVC_LANG": "{code}", **os.environ, "RVC_PYTHON": sys.executable, "RVC_USE_CURRENT_ENV": "1"}

def run(*words):
    return subprocess.run(["env", "GIT_TERMINAL_PROMPT=0", *words], capture_output=True, text=True)

def find(*places):  # pyproject.toml says what the project is, manifest.json an offline bundle, a zip the files in it
    names = "-maxdepth 4 ( -name pyproject.toml -o -name manifest.json -o -iname *rvc*.zip -size -64M )"
    ours = r'-exec grep -lE ^name.=."rvc_core"$|^."rvc_core":|/rvc_core/embedded/ {} +'
    files = run("find", *places, *names.split(), *ours.split()).stdout.splitlines()
    return min(files, key=lambda file: (file.endswith(".zip"), len(file)), default="")

found = "" if PROJECT else find(".", *PLACES)
if not (PROJECT or found or importlib.util.find_spec("rvc_core")):
    with contextlib.suppress(EOFError, NotImplementedError):  # nobody is here to answer
        PROJECT = input("{ask} ")
place, why, failed = os.path.expanduser(PROJECT.strip()), "", ""
web = r"(?:git clone )?(\w+://|\w+@|(?=\w[\w-]*(?:\.\w+)+/))(.+?)(?:/(?:tree|blob)/([^/]+).*)?/?"
address = not os.path.exists(PROJECT) and re.fullmatch(web, PROJECT.strip())
if address:
    scheme, rest, branch = address.groups()
    place = "rvc_core_project/" + re.sub(r"\W+", "-", PROJECT.strip())
    if not find(place):
        branch = ["-b", branch] if branch else []
        why = run("git", "clone", "-q", "--depth=1", *branch, (scheme or "https://") + rest, place).stderr.strip()
    why = (why or "{another}").splitlines()[-1]
found = find(place) if place else found
if found.endswith(".zip"):
    shutil.rmtree(place := os.path.expanduser("~/.cache/rvc_core/unpacked"), True)
    run(sys.executable, "-m", "zipfile", "-e", found, place)
    found = find(place)
if found and subprocess.run(["bash", os.path.dirname(found) + "/setup_env.sh"]).returncode:
    failed = """{unfinished}"""
elif not found and address:
    failed = f"""{unfetched}"""
elif not found and (PROJECT or not importlib.util.find_spec("rvc_core")):
    failed = f"""{unfound}"""
if failed:
    raise type("Stop", (Exception,), {"_render_traceback_": lambda stop: [*stop.args]})(" ".join(failed.split()))
[sys.modules.pop(module) for module in [*sys.modules] if module.split(".")[0] == "rvc_core"]
sys.path[:0] = [os.path.abspath(os.path.dirname(found))] if found else []
from rvc_core import notebook
notebook.check(measure_gpu)

# %% [markdown]
# {parameters}

# %% tags=["parameters"]
name = "my voice"   # {name} #@param {type:"string"}
dataset = ""        # {dataset} #@param {type:"string"}
songs = ""          # {songs} #@param {type:"string"}
storage = "auto"    # {storage} #@param {type:"string"}
settings = {}       # {settings} #@param {type:"raw"}
begin_again = False # {again} #@param {type:"boolean"}

# %% [markdown]
# {begin}

# %%
from rvc_core import notebook

notebook.begin(name, dataset, songs, storage, settings, begin_again=begin_again)
upload = False   # {wanted} #@param {type:"boolean"} #@colab
notebook.upload(upload) #@colab
notebook.recordings()

# %% [markdown]
# {settings_form}

# %%
from rvc_core import ExtractSettings, IndexSettings, MirrorSettings, PrepareSettings, RepairSettings
from rvc_core import RuntimeSettings, TrainSettings, notebook

minutes = 0   # {minutes} #@param {type:"number"}
notebook.plan(minutes)
notebook.form(PrepareSettings, RepairSettings, ExtractSettings, IndexSettings, TrainSettings, MirrorSettings,
              RuntimeSettings);

# %% [markdown]
# {start}

# %%
from rvc_core import notebook

notebook.prepare()
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

# %% [markdown]
# {convert_form}

# %%
from rvc_core import ConvertSettings, notebook

display(notebook.songs())
notebook.form(ConvertSettings);

# %% [markdown]
# {convert}

# %%
from rvc_core import notebook

notebook.convert();

# %% [markdown]
# {song_form}

# %%
from rvc_core import SongSettings, notebook

display(notebook.songs())
notebook.form(SongSettings);

# %% [markdown]
# {song}

# %%
from rvc_core import notebook

notebook.sing();

# %% [markdown]
# {clean}

# %%
repair = False   # {clean_wanted} #@param {type:"boolean"}
from rvc_core import notebook

notebook.clean(repair)

# %% [markdown]
# {speak_form}

# %%
from rvc_core import SpeakSettings, notebook

notebook.form(SpeakSettings);

# %% [markdown]
# {speak}

# %%
from rvc_core import notebook

notebook.speak();

# %% [markdown]
# {export}

# %%
from rvc_core import notebook

download = False   # {download} #@param {type:"boolean"} #@colab
notebook.export(download); #@colab
notebook.export(); #@elsewhere

# %% [markdown]
# {keep}

# %%
from rvc_core import notebook

notebook.parameters()

# %% [markdown]
# {clean_up}

# %%
clips, checkpoints, recordings, set_aside = False, False, False, False #@elsewhere
clips = False         # {clean_clips} #@param {type:"boolean"} #@colab
checkpoints = False   # {clean_checkpoints} #@param {type:"boolean"} #@colab
recordings = False    # {clean_recordings} #@param {type:"boolean"} #@colab
set_aside = False     # {clean_set_aside} #@param {type:"boolean"} #@colab
from rvc_core import notebook

notebook.clean_up(clips, checkpoints, recordings, set_aside)

# %% [markdown] platform="lightning"
# {job}

# %% platform="lightning"
from rvc_core import notebook

notebook.job()

# %% [markdown]
# {rules}
