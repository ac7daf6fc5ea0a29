"""All that is found, in the order in which it is told: from what nothing goes without to what is only nice to have."""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_cli.commands.preflight import nodes, release, runtimes, surroundings
from joulepath_cli.commands.preflight.facts import Facts
from joulepath_cli.commands.preflight.finding import Finding
from joulepath_cli.commands.preflight.gpus import gpu_nodes, offered
from joulepath_cli.commands.preflight.runtimes import Injection

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a cluster can have and lacks."""

    findings: tuple[Finding, ...]
    injection: Injection | None
    """How the trainer comes into containers, or can; None where there are no nodes to tell by."""

    @property
    def works(self) -> bool:
        """Whether nothing is missing that Joulepath needs."""
        return not any(one.is_missing for one in self.findings)


def judge(facts: Facts, asked: Injection | None = None) -> Judgement:
    """What is found, if the trainer is to come in the way that is asked for, or else is installed, or else can be."""
    with_gpus = gpu_nodes(facts)
    fixed = asked or runtimes.installed(facts)
    likely = fixed or runtimes.possible(facts, with_gpus)
    found = [surroundings.kubernetes(facts), offered(facts)]
    if with_gpus:
        found += [nodes.label(facts, with_gpus), nodes.platform(with_gpus)]
        found += runtimes.ways(facts, with_gpus, fixed)
        found += [nodes.kernel(facts, with_gpus, fixed, likely), release.permission(facts, with_gpus)]
    found.append(surroundings.release_namespace(facts))
    found += surroundings.training_namespaces(facts, likely)
    found += surroundings.openshift(facts)
    found += [surroundings.job_kinds(facts), surroundings.prometheus(facts)]
    return Judgement((*found, *release.itself(facts, with_gpus)), likely)
