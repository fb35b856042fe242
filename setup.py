"""Packaging. weights/ and tasks/ are data at the top of a checkout and travel inside the package."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

DATA = {
    "weights": ("*.toml", "*.md", "reference/*.safetensors"),
    "tasks": ("*.toml", "*.md", "studies/*.toml"),
}


class BuildWithData(build_py):
    """Put weights/ and tasks/ into the package of a wheel; an editable install reads them where they are.

    A mapping in `package_dir` would do it too, but then an editable install hides behind an import finder,
    and Python started in the folder that holds the clone takes the clone itself for the package.
    """

    def run(self):
        """As ever, and then the data."""
        super().run()
        if self.editable_mode:
            return
        for name, patterns in DATA.items():
            for path in (p for pattern in patterns for p in Path(name).glob(pattern)):
                target = Path(self.build_lib, "minibert", path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


version = next(
    line.split('"')[1]
    for line in Path(__file__)
    .with_name("minibert")
    .joinpath("__init__.py")
    .read_text(encoding="utf-8")
    .splitlines()
    if line.startswith("__version__")
)

setup(
    name="minibert",
    version=version,
    description="A BERT/RoBERTa encoder written by hand, that loads published weights and fine-tunes them",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["minibert", "minibert.*"]),
    package_dir={"": "."},
    package_data={
        "minibert.report": ["*.j2", "*.css"],
        "minibert.bench": ["*.j2"],
        "minibert.explain": ["*.j2", "*.css", "*.js"],
        "minibert.kernels": ["*.cpp"],
    },
    cmdclass={"build_py": BuildWithData},
    install_requires=[
        "numpy>=1.26",
        "torch>=2.6",
        "tokenizers>=0.21",
        "safetensors>=0.5",
        "huggingface_hub>=0.30",
        "pandas>=2.2",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "threadpoolctl>=3",
        "matplotlib>=3.8",
        "Jinja2>=3.1",
        "typer>=0.24,<0.29",  # 0.29 imports pydantic at every start
        "rich>=13",
    ],
    extras_require={
        "excel": ["openpyxl>=3.1"],
        "parquet": ["pyarrow>=15"],
        "tensorboard": ["tensorboard>=2.18"],
        "course": ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"],
        "vader": ["vaderSentiment>=3.3.2"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6",
            "ruff",
            "openpyxl>=3.1",
            "pyarrow>=15",
            "tensorboard>=2.18",
            "vaderSentiment>=3.3.2",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "build",
        ],
        "browser": ["playwright>=1.40"],
        "triton": ["triton>=3.7; platform_system == 'Linux'"],
        "peers": ["transformers>=5", "accelerate>=1.1", "sentence-transformers>=5"],
        "engines": ["onnxruntime>=1.24", "onnx>=1.20", "openvino>=2026.1", "nncf>=3.1"],
    },
    entry_points={"console_scripts": ["minibert = minibert.cli:app"]},
)
