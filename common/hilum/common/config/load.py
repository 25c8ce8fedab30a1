"""From TOML to a checked config, with errors that say what to write instead."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from hilum.common.config.base import NAME_PATTERN, Section
from hilum.common.config.named import name_of, options_of
from hilum.common.config.site import SERVER_PATTERN, STUDY_KEY_PATTERN, SiteConfig
from hilum.common.config.study import StudyConfig
from hilum.common.config.task_file import TaskConfig
from hilum.common.errors import ConfigError
from hilum.common.home import expanded

ConfigT = TypeVar("ConfigT", bound=Section)
_STUDY_HELP = "`hilum study new FILE` writes a complete template"
_TASK_HELP = "docs/how-to/fine-tune.md shows a complete one"
_SITE_HELP = "`hilum site new FILE` writes a complete one"
_PATTERNS = {
    NAME_PATTERN: "expected letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit",
    SERVER_PATTERN: "expected HOST:PORT, without https://",
    STUDY_KEY_PATTERN: "expected the line that `hilum site join` writes",
}


def load_study(path: Path) -> StudyConfig:
    """Read and check a study file; the relative path of `encoder.init.file` starts from the file's own folder.

    Raises:
        ConfigError: If it can't be read, is not TOML, or any key or value is wrong.
    """
    study = parse_study(_read(path, _STUDY_HELP), source=path.name)
    if study.encoder.init is None:
        return study
    return with_init_file(study, str(path.absolute().parent / expanded(Path(study.encoder.init.file))))


def with_init_file(study: StudyConfig, file: str) -> StudyConfig:
    """Return a study whose `encoder.init` names its file otherwise; one without it as it is."""
    if study.encoder.init is None:
        return study
    init = study.encoder.init.model_copy(update={"file": file})
    return study.model_copy(update={"encoder": study.encoder.model_copy(update={"init": init})})


def parse_study(table: dict[str, Any], *, source: str = "study") -> StudyConfig:
    """Check a study that is already a table; see `load_study`."""
    return _check(StudyConfig, table, source, _STUDY_HELP)


def load_site(path: Path) -> SiteConfig:
    """Read and check a site file; relative paths in it start from the file's own folder.

    Raises:
        ConfigError: If it can't be read, is not TOML, or any key or value is wrong.
    """
    try:
        site = _check(SiteConfig, _read(path, _SITE_HELP), path.name, _SITE_HELP)
    except ConfigError as error:  # no command lists the problems of a site file, so all of them are told here
        raise ConfigError(error.source, ["; ".join(error.problems)]) from None
    folder = path.absolute().parent

    def rooted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rooted(inner) for key, inner in value.items()}
        return folder / expanded(value) if isinstance(value, Path) else value

    return SiteConfig.model_validate(rooted(site.model_dump()))


def load_task(path: Path) -> TaskConfig:
    """Read and check a task file; relative paths in it start from the file's own folder.

    Raises:
        ConfigError: If it can't be read, is not TOML, or any key or value is wrong.
    """
    task = _check(TaskConfig, _read(path, _TASK_HELP), path.name, _TASK_HELP)
    folder, given = path.absolute().parent, task.finetune
    rooted = {name: folder / expanded(getattr(given, name)) for name in ("encoder", "site", "out")}
    return task.model_copy(update={"finetune": given.model_copy(update=rooted)})


def study_to_toml(study: StudyConfig) -> str:
    """Return the study with every default written out; reading it gives the same study."""
    return tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))


def _read(path: Path, how_to_write: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError:
        raise ConfigError(path.name, [f"there is no such file; {how_to_write}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        problem = f"can't be read ({type(error).__name__}); it must be a UTF-8 text file that you may read"
        raise ConfigError(path.name, [problem]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path.name, [f"is not valid TOML: {error}"]) from None


def _check(model: type[ConfigT], table: dict[str, Any], source: str, how_to_write: str) -> ConfigT:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        found = error.errors()
        # Of a list, what is wrong with an item is told, and not that the list lacks it; and of a key that others follow from,
        # not that they could not.
        outer = [
            problem
            for problem in found
            if problem["type"] != "default_factory_not_called"
            and not any(
                len(other["loc"]) > len(problem["loc"])
                and other["loc"][: len(problem["loc"])] == problem["loc"]
                for other in found
            )
        ]
        problems = [_explain(model, problem, how_to_write) for problem in outer]
        raise ConfigError(source, problems) from None


def _explain(model: type[BaseModel], problem: Any, how_to_write: str) -> str:
    """Return one line for one of pydantic's problems: the key, what was found, what to write."""
    where = [str(part) for part in problem["loc"]]
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _known_keys(model, where[:-1])
        path = ".".join(_written(model, where))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key `{path}`; {hint}"
    path = ".".join(_written(model, where))
    if kind == "missing":
        what = "table" if len(where) == 1 else "key"
        return f"the {what} `{path}` is missing; {how_to_write}"
    if kind == "union_tag_not_found":
        return f"`{path}.name` is missing; choose one of {_tags(model, where)}"
    if kind == "union_tag_invalid":
        return f"`{path}.name = {problem['ctx']['tag']!r}` is unknown; choose one of {_tags(model, where)}"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if kind == "literal_error":
        near = difflib.get_close_matches(str(problem["input"]), _allowed(problem), n=1, cutoff=0.4)
        message += f"; did you mean {near[0]!r}?" if near else ""
    if kind == "string_pattern_mismatch":
        message = _PATTERNS.get(problem["ctx"]["pattern"], message)
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        message = f"must be a table, `[{path}]`"
    if kind == "tuple_type":
        message = "must be a list, in brackets"
    return f"`{path} = {problem['input']!r}`: {message}"


def _allowed(problem: Any) -> list[str]:
    """Return the words that a literal allows, out of pydantic's `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))


def _tags(model: type[BaseModel], where: list[str]) -> str:
    return ", ".join(sorted(name_of(option) for option in _walk(model, where)[0]))


def _written(model: type[BaseModel], where: list[str]) -> list[str]:
    """Return the path as the file has it: pydantic adds a union's tag (`encoder.vit.patch_size`), which is dropped."""
    return _walk(model, where)[1]


def _known_keys(model: type[BaseModel], where: Iterable[str]) -> list[str]:
    """Return the keys that the table at `where` may have."""
    return sorted({key for option in _walk(model, where)[0] for key in option.model_fields})


def _walk(model: type[BaseModel], where: Iterable[str]) -> tuple[list[type[BaseModel]], list[str]]:
    """Return the section classes at `where`, and the path to them without the tags of unions."""
    options, path = [model], []
    for part in where:
        tagged = [option for option in options if len(options) > 1 and name_of(option) == part]
        if not tagged:
            path.append(part)
        options = tagged or [
            inner
            for option in options
            if part in option.model_fields
            for inner in options_of(option.model_fields[part].annotation)
        ]
    return options, path
