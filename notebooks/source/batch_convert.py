# %% [markdown]
# # Convert recordings, unattended
#
# `papermill batch_convert.ipynb out.ipynb -p voice alice -p inputs songs/ -p output converted/` converts each
# recording; with `-p song True`, the voice sings each song; with `-p text news.txt`, it speaks a text instead. The
# voice must be of a person who agreed.

# %% tags=["parameters"]
voice = "my voice"   # name of an experiment, or a .pth file
inputs = "songs"   # a recording, or a folder of them
output = "converted"   # folder for the results
song = False   # True: the recordings are songs; separate, convert the vocals, mix
backing_voice = ""   # of songs: an experiment or .pth that sings the backing vocals; empty: they stay
index = "auto"   # auto: the voice's own; none; or an .index file
result = "convert_result.json"   # where the reports go

# %% [markdown]
# About a fifth of the recordings' length, or less.

# %%
from rvc_core import batch

reports = batch.convert_folder(voice, inputs, output, result, parameters=globals(), index=index)

# %%
print(batch.summary(reports))
