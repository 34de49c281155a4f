"""Training of the analyzer: needs PyTorch; labelling needs openvino besides.

In the order of use:

1. `labelling.label` cuts aligned crops of every face of the packs (`crops`) and asks labelling networks (`teachers`,
   `judge`); labels made by eye lie in `models/training/labels`; `cache` puts both together;
2. `train` draws samples (`samples`, `occlusion`) and trains the network (`network`, `loss`, `heads`) by
   `common.trainer`; `import_onnx` lets it start from an exported file;
3. `evaluation.calibrate` makes its probabilities mean what they say;
4. `export` writes the ONNX file;
5. `evaluation.looks` has the product's networks look at faces of all sizes, and at backs of heads; `trust` fits to
   them how much size, angle, blur and signs of no face take from a confidence, for the manifest;
6. `evaluation.evaluate` prints the model card's tables (`figures`, `views`, `points68`);
7. `travel` and `gpu.gpu_run` (optional) do 2 and 4 on a machine with a GPU that is lent for minutes: samples are
   composed there (`gpu.compose`, `camera`, `cover`), large networks learn first and teach (`gpu.learn`, `lessons`), the
   shipped one's answers stand in for labels that are missing (`gpu.faces`), and `gpu.judge` prints held-out figures.

    python -m visaged.models.training.analyzer.labelling.label --data PACKS --teachers DIR --out CROPS
    python -m visaged.models.training.analyzer.train --cache CROPS --out RUN --init models/weights/analyzer-v1.onnx
    python -m visaged.models.training.analyzer.evaluation.calibrate RUN/last.pt --cache CROPS --out RUN/calibrated.pt
    python -m visaged.models.training.analyzer.export RUN/calibrated.pt mine.onnx
    python -m visaged.models.training.analyzer.evaluation.looks --cache CROPS --data PACKS --videos DIR \
        --out RUN/looks.npz
    python -m visaged.models.training.analyzer.evaluation.trust RUN/looks.npz
    python -m visaged.models.training.analyzer.evaluation.evaluate --cache CROPS --model mine=mine.onnx \
        --looks RUN/looks.npz

Within nine minutes on a lent GPU, with what takes 47 MB along; the labelling networks label only what is judged by:

    python -m visaged.models.training.analyzer.labelling.label --data PACKS --teachers DIR --out CROPS --held-out-only
    python -m visaged.models.training.analyzer.travel pack --cache CROPS --out .travel --held-out --sheets PACKS \
        --quality 60
    # there, in a copy of this repository with `.travel` in it
    make .types/visaged
    PYTHONPATH=.types python3 -m visaged.models.training.analyzer.gpu.gpu_run --travel .travel --out OUT --seconds 520
"""
