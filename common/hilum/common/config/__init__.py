"""A study is one TOML file, a site another: typed, frozen, checked once."""

from hilum.common.config.load import load_site, load_study, parse_study, study_to_toml
from hilum.common.config.site import SiteConfig
from hilum.common.config.study import StudyConfig

__all__ = ["SiteConfig", "StudyConfig", "load_site", "load_study", "parse_study", "study_to_toml"]
