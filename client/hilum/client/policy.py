"""What this site agrees to run: a hard ceiling that no study can raise."""

from hilum.common import __version__
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.errors import PolicyRefused


def check_policy(site: SiteConfig, study: StudyConfig) -> None:
    """Compare a study with the site's ceilings.

    Raises:
        PolicyRefused: If the study asks for more; the message names the key that would allow it.
    """
    policy = site.policy
    if policy.methods is not None and study.method.name not in policy.methods:
        raise PolicyRefused(
            f"{site.site.name} runs {', '.join(policy.methods)}, the study asks for {study.method.name}; "
            "see `policy.methods` of the site"
        )
    _at_most(site, "max_rounds", study.federation.rounds, policy.max_rounds)
    _at_most(site, "max_local_epochs", study.training.local_epochs, policy.max_local_epochs)


def check_version(server_version: str) -> None:
    """Both sides must run the same version: the study is data, the code is what each installed.

    Raises:
        PolicyRefused: If they differ.
    """
    if server_version != __version__:
        raise PolicyRefused(
            f"the server runs Hilum {server_version}, this site {__version__}; install the same version on both"
        )


def _at_most(site: SiteConfig, key: str, asked: int, allowed: int) -> None:
    if asked > allowed:
        raise PolicyRefused(f"{site.site.name} allows {key} = {allowed}, the study asks for {asked}")
