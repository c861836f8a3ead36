"""Commands beside the scripts: `python -m retinanet.tools.NAME`."""
