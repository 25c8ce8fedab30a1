"""Pages of HTML from the templates of a package."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def pages_of(package: str) -> Environment:
    """Return a package's templates: every value is escaped, and one that is missing is an error."""
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
