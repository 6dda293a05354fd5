# %% [markdown]
# # Train a voice, unattended
#
# `papermill batch_train.ipynb out.ipynb -p name alice -p dataset recordings/` prepares the recordings, extracts
# features, builds the index and trains. Running it again continues. The recordings must be of a person who agreed.

# %% tags=["parameters"]
name = "my voice"   # any script; the folder gets an ASCII spelling
dataset = "recordings"   # folder of recordings, or one recording
result = "train_result.json"   # where the reports go

# %% [markdown]
# Prepare, extract, index, train: minutes to hours, depending on epochs, recordings and machine.

# %%
from rvc_core import batch

reports = batch.train_voice(name, dataset, result, parameters=globals())

# %% [markdown]
# What came of it. The voice is the file named under `train`.

# %%
print(batch.summary(reports))
