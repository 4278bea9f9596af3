"""What Beam stages to its workers (`--setup_file`); metadata and requirements are in pyproject.toml.

Workers need the code of a pipeline and the data that it reads (schemas, presets, templates).
Tests, DAGs and benchmarks stay at home; MANIFEST.in keeps them out of the archive too.
"""

from setuptools import find_packages, setup

PACKAGES = ("components", "pipelines", "schemas")
DATA = ("css", "html", "json", "md", "pbtxt", "svg", "txt", "yaml")

setup(
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={"": [f"**/*.{suffix}" for suffix in DATA]},
    include_package_data=False,
)
