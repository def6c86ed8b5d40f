"""What is done with a trained model: predict, and export.

predictor.py      runs a model on images as in evaluation
predict_files.py  images and videos -> sources.py -> predictor.py -> pictures.py, outputs.py
backgrounds.py    images on which a model is wrong, to train on
export.py         models for stock Detectron2
graph.py          models for TorchScript and ONNX, compared with their originals
"""
