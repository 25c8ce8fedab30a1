"""A study is one TOML file, a site another: typed, frozen, checked once."""

from hilum.common.config.load import load_site, load_study, load_task, parse_study, study_to_toml
from hilum.common.config.site import SiteConfig
from hilum.common.config.study import StudyConfig
from hilum.common.config.task_file import TaskConfig

__all__ = [
    "SiteConfig",
    "StudyConfig",
    "TaskConfig",
    "load_site",
    "load_study",
    "load_task",
    "parse_study",
    "study_to_toml",
]
