"""A picture for each prompt of a file, in a folder, drawn by any number of devices and processes.

`prompts.py` reads the file, `folder.py` knows what is drawn already, `draw.py` draws what is not.
"""
