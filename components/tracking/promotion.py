"""Which version is the champion: the rule, and the way back.

The alias `champion` moves to a version when all of this holds:

1. it has a BD-rate with a 95 % interval, measured on the same benchmarks, at the same qualities, as the champion's;
2. the whole interval lies below the champion's BD-rate: better, and not by chance;
3. nobody has rolled it back.

The first version of a model is its champion, and gives way to the first that has a BD-rate. A version on other
benchmarks cannot be compared, so it replaces nobody; `cotam rollback --to` moves the alias by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import CotamError

CHAMPION = "champion"
HISTORY = "champion_history"  # of the registered model: version numbers, oldest first
ROLLED_BACK = "rolled_back"  # of a version
REASON = "promotion"  # of a version: what the rule said of it last


@dataclass(frozen=True)
class Verdict:
    """Whether a version may become champion, and why, as the end of a sentence."""

    moves: bool
    reason: str


def judge(challenger: Mapping[str, str], champion: Mapping[str, str] | None) -> Verdict:
    """Apply the rule.

    Args:
        challenger: tags of the version that may become champion: `bd_rate` and `bd_rate_high` in per cent (lower is
            better; empty when unknown), `benchmarks` (what they were measured on).
        champion: tags of the version that is champion; None when none is.
    """
    if challenger.get(ROLLED_BACK):
        return Verdict(False, f"it was rolled back ({challenger[ROLLED_BACK]})")
    if champion is None:
        return Verdict(True, "it is the first")
    held, value, high = (_number(text) for text in (champion.get("bd_rate"), challenger.get("bd_rate"),
                                                    challenger.get("bd_rate_high")))  # fmt: skip
    if value is None:
        return Verdict(False, "it has no BD-rate")
    if held is None:
        return Verdict(True, "the champion has no BD-rate")
    if challenger.get("benchmarks", "") != champion.get("benchmarks", ""):
        return Verdict(False, "it was measured on other benchmarks than the champion, or at other qualities")
    if value >= held:
        return Verdict(False, f"its BD-rate of {value:.1f} % is not better than the champion's {held:.1f} %")
    if high is None:
        return Verdict(False, "its BD-rate has no interval")
    if high >= held:
        return Verdict(False, f"its interval reaches {high:.1f} %, and so the champion's {held:.1f} %")
    return Verdict(True, f"its BD-rate of {value:.1f} % (at most {high:.1f} %) is better than {held:.1f} %")


def promote(client, name: str, version: str) -> Verdict:
    """Make `version` of the model `name` its champion if the rule says so, and write down what it said."""
    champion = current(client, name)
    if champion is not None and str(champion.version) == version:  # a store without a server has whole numbers
        return Verdict(True, "it is the champion")
    challenger = client.get_model_version(name, version)
    verdict = judge(challenger.tags, champion.tags if champion else None)
    client.set_model_version_tag(name, version, REASON, verdict.reason)
    if not verdict.moves:
        return verdict
    _crown(client, name, version, champion.version if champion else None)
    holder = _settle(client, name)
    if holder == version:
        return verdict
    verdict = Verdict(False, f"version {holder}, which was registered at the same time, is better")
    client.set_model_version_tag(name, version, REASON, verdict.reason)
    return verdict


def _settle(client, name: str) -> str:
    """Give the alias to whichever version the rule prefers to its holder, until there is none; return the holder.

    MLflow has no transactions: two runs that end at once may both beat the former champion, and the worse of them may
    move the alias last. Whoever has moved it therefore looks once more. Each turn lowers the BD-rate, so it ends.
    """
    while True:
        holder = current(client, name)
        for one in client.search_model_versions(f"name = '{name}'"):
            if str(one.version) != str(holder.version) and (verdict := judge(one.tags, holder.tags)).moves:
                client.set_model_version_tag(name, str(one.version), REASON, verdict.reason)
                _crown(client, name, str(one.version), str(holder.version))
                break
        else:
            return str(holder.version)


def current(client, name: str):
    """The champion of a model, or None."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, version) if version else None


def roll_back(uri: str, name: str, why: str, to: str | None = None) -> tuple[str, str]:
    """Take the champion's title away and give it to the one before (or to version `to`).

    The version that lost it is tagged with `why` and is never promoted again by the rule. Nor is any other that the
    rule would at once prefer to the new holder: whoever named that one has passed over them.

    Returns:
        The version that was champion and the one that is now.

    Raises:
        CotamError: there is no such model or version, or no champion before this one.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        champion = current(client, name)
        if champion is None:
            raise CotamError(f"{name} has no champion.")
        held = str(champion.version)  # a store without a server has whole numbers
        target = to or _before(client, name, held)
        if target == held:
            raise CotamError(f"Version {target} of {name} is the champion already.")
        client.get_model_version(name, target)  # or it is not there
        client.set_model_version_tag(name, held, ROLLED_BACK, why)
        client.delete_model_version_tag(name, target, ROLLED_BACK)
        holder = client.get_model_version(name, target)
        for one in client.search_model_versions(f"name = '{name}'"):
            if judge(one.tags, holder.tags).moves:
                passed = f"version {target} was chosen over it: {why}"
                client.set_model_version_tag(name, one.version, ROLLED_BACK, passed)
        _crown(client, name, target, held)
    except MlflowException as error:
        raise CotamError(f"MLflow at {uri} did not roll back {name}: {error.message}") from error
    return held, target


def _before(client, name: str, version: str) -> str:
    there = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    for earlier in reversed(_history(client, name)):
        if earlier != version and earlier in there and not there[earlier].tags.get(ROLLED_BACK):
            return earlier
    raise CotamError(f"{name} had no champion before version {version}; name one with --to.")


def _crown(client, name: str, version: str, former: str | None) -> None:
    # The history first: of a kill between the two calls it then knows too much, which does no harm.
    known = _history(client, name) or ([former] if former else [])
    client.set_registered_model_tag(name, HISTORY, ",".join([*known, version]))
    client.set_registered_model_alias(name, CHAMPION, version)


def _history(client, name: str) -> list[str]:
    said = client.get_registered_model(name).tags.get(HISTORY, "")
    return [version for version in said.split(",") if version]


def _number(text: str | None) -> float | None:
    return float(text) if text else None
