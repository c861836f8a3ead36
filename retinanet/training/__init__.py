"""Steps, schedule and state of a training, and the folder and log of a run; it reads no flags."""
