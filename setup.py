"""In a wheel, configs/ is nrpn_d2/configs/; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["nrpn_d2", "nrpn_d2.*"]), "nrpn_d2.configs"],
    package_dir={"nrpn_d2.configs": "configs"},
    package_data={
        "nrpn_d2": ["py.typed", "utils/page.*", "utils/*.js"],
        "nrpn_d2.configs": ["**/*"],
    },
)
