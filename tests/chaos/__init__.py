"""Everything around the daemon fails in turn, and itself too; what it published is then held against what it promises.

Two daemons run at a time, each with two cameras of faces that come and go. One publishes to a broker of our own, which
writes every message down before it acknowledges it and can die at any byte; the other to a mosquitto, which is killed
and frozen, with a subscriber whose session outlives that. The second daemon has a clock of its own.

    python -m tests.chaos --minutes 15

The table that it prints counts faults and the time to recover from them, and of events: what was numbered and never
came (gaps in `seq`, and tracks that `faces` showed and no event told), what came out of order, tracks without an end,
and wrong `replayed` flags. Any of these makes it fail.
"""
