# %% [markdown]
# # Hear which saved voice is the best
#
# Measurements choose candidates; ears choose among them. Each candidate speaks the same clips, equally loud. You hear
# two at a time without knowing which is which. Choices are kept beside the metrics, in `choices.jsonl`.
# `papermill compare_checkpoints.ipynb out.ipynb -p name alice` makes the table and the files, and exports the
# recommended voice.

# %% tags=["parameters"]
name = "my voice"   # the experiment
clips = ""   # a recording of somebody else, or a folder of them; empty: three sentences of the package
sweep = {}   # values to try on the first clip, as {"index_rate": [0, 0.5, 0.75], "protect": [0.2, 0.33]}
choice = "auto"   # epoch to export; auto: the one preferred most, before that the recommended one
export_to = "exported"   # folder for the chosen voice
export_layout = "zip"   # zip, or rvc or applio: the folder of that program
result = "compare_result.json"   # where the reports go

# %% [markdown]
# What the verdict says, and the candidates in the order of their epochs. An arrow says where better is.

# %%
from IPython.display import Markdown, display

import rvc_core as rvc
from rvc_core import batch
from rvc_core.notebook import compare
from rvc_core.progress import Terminal

lab = rvc.Experiment.open(name, runtime=batch.settings_from(rvc.RuntimeSettings, globals()))
print(lab.verdict())
heard = compare.compare(lab, clips, batch.settings_from(rvc.ConvertSettings, globals()), Terminal())
display(Markdown(heard.table()))

# %% [markdown]
# Listen to A and B, and press the button below. The better one meets the next. At the end you learn who was who.

# %%
from rvc_core.notebook import listening

listening.ab(heard)

# %% [markdown]
# With `sweep`: every combination of checkpoint and settings on the first clip, measured, then heard blind.

# %%
if sweep:
    table, trials = compare.swept(lab, clips, sweep, batch.settings_from(rvc.ConvertSettings, globals()), Terminal())
    display(Markdown(table.table()), *table.notes)
    display(listening.ab(trials))

# %% [markdown]
# The voice that you preferred most (or the epoch that you set as `choice`), for this and other programs.

# %%
report = compare.export(heard, choice, export_to, export_layout, result)
display(Markdown(heard.table()))
print("\n".join(report["exported"]))
