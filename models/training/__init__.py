"""Training of both networks: not installed, and in need of PyTorch, which the daemon itself does without.

`common` is shared by both networks, `labelling` makes labels, `detector` and `analyzer` train, `evaluation` measures.
In the order of use:

1. `common.packs` says how pictures and labels lie on disk and which pictures are held out;
2. `labelling.relabel` (optional) has a second detector look at doubtful labels;
3. `detector.train` draws samples (`detector.samples`, `common.photometric`) and trains the network (`shapes`,
   `network`, `assignment`, `loss`) by `common.trainer`, on the CPU or beside a GPU (`feed`); `import_onnx` lets it
   start from an exported file, `widen` the larger shape from one of the smaller;
4. `labelling.mine` (optional) lists the pictures without a face that fool the network, for the next run to draw more
   often;
5. `detector.export` writes the ONNX file;
6. `evaluation.evaluate` prints the model card's tables (`decode`, `metrics`); `common.duplicates` lists held-out
   pictures that training saw a copy of; with `--through-product` it judges the daemon itself instead, pictures over
   HTTP and clips as cameras (`through_product`, `product`, `sweep`), after every change of a network, threshold or
   tracker;
7. `evaluation.failures` draws the model cards' pictures of what the networks get wrong (`worsen`), after every change
   of one;
8. `detector.gpu.travel` and `detector.gpu.gpu_run` (optional) do 3, 5 and the half of 6 on a machine with a GPU that
   is lent for minutes.

`labelling.clips` makes a pack of frames of videos, where a person has said of each stretch what faces it shows.

For example, to train the shipped detector further on pictures of one's own, packed as `packs` describes:

    python -m visaged.models.training.detector.train --data PACKS --weights '{"mine": 0.6, "background": 0.4}' \
        --init models/weights/detector.onnx --out RUN --learning-rate 5e-4 --samples 200000 --decay-from 50000
    python -m visaged.models.training.detector.export RUN/last.pt mine.onnx
    python -m visaged.models.training.evaluation.evaluate --data PACKS --model mine=mine.onnx

And the larger one, `detector-m`, within nine minutes on a lent GPU, with what takes at most 54 MB along:

    python -m visaged.models.training.detector.gpu.travel --data PACKS --labels LABELS --hard hard.csv --out .travel
    # there, in a copy of this repository with `.travel` in it; `gpu_run` says what must be installed
    make .types/visaged
    PYTHONPATH=.types python3 -m visaged.models.training.detector.gpu.gpu_run --data .travel --out OUT --minutes 9

At least one pack must hold pictures without a face: what is never shown to be background becomes a false alarm.
"""
