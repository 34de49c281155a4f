"""Fuzzing of everything that reads what strangers send: `python -m tests.fuzz --help`.

A *target* (`targets/`) is a place where bytes come in. Its inputs are the files of `corpus/<target>/` and mutations of
them (`mutator.py`), which also put in words of `words/<target>.txt`. A *campaign* (`campaign.py`) sends them in
batches to a running daemon (`subject.py`); an *oracle* (`oracle.py`) then says whether something is wrong. What is
wrong becomes a *finding* (`findings.py`), with the input in a file; once mended, that file goes into the corpus.
"""
