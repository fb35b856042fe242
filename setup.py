"""Packaging. weights/ and tasks/ are data at the top of a checkout and travel as package data."""

from pathlib import Path

from setuptools import find_packages, setup

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
    packages=[*find_packages(include=["minibert", "minibert.*"]), "minibert.weights", "minibert.tasks"],
    package_dir={"minibert.weights": "weights", "minibert.tasks": "tasks"},
    package_data={
        "minibert.report": ["*.j2", "*.css"],
        "minibert.weights": ["*.toml", "*.md", "reference/*.safetensors"],
        "minibert.tasks": ["*.toml", "*.md"],
    },
    install_requires=[
        "numpy>=1.26",
        "torch>=2.6",
        "tokenizers>=0.21",
        "safetensors>=0.5",
        "huggingface_hub>=0.30",
        "pandas>=2.2",
        "scikit-learn>=1.5",
        "matplotlib>=3.8",
        "Jinja2>=3.1",
        "typer>=0.24,<0.29",  # 0.29 imports pydantic at every start
        "rich>=13",
    ],
    extras_require={
        "excel": ["openpyxl>=3.1"],
        "parquet": ["pyarrow>=15"],
        "test": ["pytest>=8", "hypothesis>=6", "ruff", "openpyxl>=3.1", "pyarrow>=15", "build"],
        "browser": ["playwright>=1.40"],
        "peers": ["transformers>=5", "sentence-transformers>=5"],
    },
    entry_points={"console_scripts": ["minibert = minibert.cli:app"]},
)
