# %% [markdown]
# # One library of blocks, a front for each of three devices
#
# Blocks are distilled once. Each device then searches its own combinations of them; the comparison says what
# the best network for one costs on the others.

# %%
import hwnas

run = hwnas.compress(
    "resnet10t",
    data="digits",
    devices=["cpu", "sim-npu", "sim-tpu-like-df"],
    out="runs/three",
    preset="quick",
    space="residual",
    train_epochs=2,
    candidates=3,
    epochs=1,
    population=4,
    generations=2,
    finetune_epochs=1,
)
for device in run.devices:
    front = run.front(device)
    print(f"{device}: {front.evaluated} networks measured, {len(front.front)} on the front")
print(run.path / "comparison.html")
