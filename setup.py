from setuptools import find_packages, setup

# torch, torchvision, Detectron2 and OpenCV are not listed: each comes in several builds under
# several names (CPU and CUDA, opencv-python and its headless and contrib forms), and Detectron2
# is on no registry under its own name. `make` installs one tested set from requirements.lock;
# an environment that has them keeps what it has.
setup(
    name="nrpn_d2",
    version="0.1.0",
    description="Negative RPN for Detectron2: hard negatives and an overlap loss for proposals",
    license="Apache-2.0",
    packages=find_packages(include=["nrpn_d2", "nrpn_d2.*"]),
    python_requires=">=3.10",
    install_requires=[
        "defusedxml",
        "fvcore",
        "matplotlib",
        "numpy",
        "Pillow",
        "scipy",
        "tabulate",
        "tqdm",
    ],
)
