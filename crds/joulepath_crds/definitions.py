"""The seven kinds of joulepath.dev: their names, and what `kubectl get` shows of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from joulepath_crds.contract import GROUP, VERSION, Contract, rule
from joulepath_crds.energyplan import EnergyPlanSpec, EnergyPlanStatus, Phase
from joulepath_crds.energypolicy import POLICY_NAME, EnergyPolicySpec
from joulepath_crds.energyprofile import EnergyProfileSpec
from joulepath_crds.jobplan import JobPlanSpec
from joulepath_crds.nodemeasurement import NodeMeasurementStatus
from joulepath_crds.nodereport import NodeReportStatus, NodeStateStatus
from joulepath_crds.schema import structural

__all__ = ["KINDS", "ApiKind", "PrinterColumn", "definition"]


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """A column of `kubectl get`; `wide` ones only with `-o wide`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def to_api(self) -> dict[str, Any]:
        """The column as an entry of `additionalPrinterColumns`."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return {**column, "priority": 1} if self.wide else column


@dataclass(frozen=True, slots=True)
class ApiKind:
    """A kind of API object."""

    name: str
    short: str
    description: str
    columns: tuple[PrinterColumn, ...]
    spec: type[Contract] | None = None
    status: type[Contract] | None = None
    namespaced: bool = True
    initial_status: dict[str, Any] | None = None
    """What a reader sees before anybody has written a status."""

    rules: tuple[dict[str, Any], ...] = ()
    """Validations of the whole object, its name included."""

    as_written: bool = False
    """Whether the API server adds no defaults: the content is hashed, and an older writer knows no newer field."""

    @property
    def plural(self) -> str:
        """The name in URLs: `energyplans`."""
        name = self.name.lower()
        return f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"


AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp", "Time since it was made.", "date")

KINDS: Final = (
    ApiKind(
        name="EnergyPlan",
        short="eplan",
        description="An EnergyPlan asks Joulepath to save energy in one training job: GPUs whose work nobody waits for "
        "run it at lower clocks, and the time of a training iteration stays what it was. Annotate the job with "
        "joulepath.dev/energy-plan: NAME, apply this beside it, and read the savings, as measured, in its status.",
        spec=EnergyPlanSpec,
        status=EnergyPlanStatus,
        initial_status={
            "phase": Phase.PENDING.value,
            "message": "No operator has looked at this yet. If that stays so, check that the Joulepath operator runs: "
            "kubectl get pods -A -l app.kubernetes.io/part-of=joulepath",
        },
        rules=(
            # The name goes into label values, which hold 63 characters.
            rule(
                "self.metadata.name.size() <= 63",
                "metadata.name is longer than 63 characters: choose a shorter name, and the same one in the job's "
                "annotation",
            ),
        ),
        columns=(
            PrinterColumn("Phase", ".status.phase", "How far it has come; kubectl describe says what it waits for."),
            PrinterColumn("Progress", ".status.progress", "How far the phase has come."),
            PrinterColumn("Job", ".spec.job.name", "The training job."),
            PrinterColumn("T_min", ".status.plan.tMinSeconds", "Seconds of an iteration at default clocks.", "number"),
            PrinterColumn("T", ".status.plan.iterationTimeSeconds", "Seconds of an iteration with the plan.", "number"),
            PrinterColumn("Predicted", ".status.predicted", "Energy that the plan is predicted to save."),
            PrinterColumn("Savings", ".status.savings", "Energy saved, as measured, with its 95% confidence interval."),
            AGE,
            PrinterColumn("Mode", ".spec.mode", "Enforce or Observe.", wide=True),
            PrinterColumn("Granularity", ".status.plan.granularity", "How often the clock may change.", wide=True),
            PrinterColumn("Message", ".status.message", "What is going on, or what to do.", wide=True),
        ),
    ),
    ApiKind(
        name="EnergyPolicy",
        short="epol",
        description="An EnergyPolicy is the word of whoever administers the cluster: it pauses all plans, and bounds "
        "what EnergyPlans may ask for. There is one, named default; without it nothing is restricted.",
        spec=EnergyPolicySpec,
        namespaced=False,
        rules=(
            rule(
                f"self.metadata.name == '{POLICY_NAME}'",
                f"one EnergyPolicy holds for the cluster, and its name is {POLICY_NAME}: set metadata.name to that",
            ),
        ),
        columns=(
            PrinterColumn("Paused", ".spec.paused", "Whether all GPUs run default clocks.", "boolean"),
            PrinterColumn("Reason", ".spec.pauseReason", "Why it is paused."),
            PrinterColumn("Slowdown", ".spec.maxSlowdownPercent", "Percent that any plan may ask for.", "number"),
            AGE,
        ),
    ),
    ApiKind(
        name="EnergyProfile",
        short="eprofile",
        description="An EnergyProfile holds what the work of a job costs, in seconds and joules, at each GPU clock, as "
        "measured in a running job. Joulepath writes it; it outlives the job, and the next run with the same topology "
        "starts from it. Delete it to have that run measured anew.",
        spec=EnergyProfileSpec,
        columns=(
            PrinterColumn("Schedule", ".spec.topology.schedule", "Schedule of the pipeline."),
            PrinterColumn("Stages", ".spec.topology.stages", "Stages of the pipeline.", "integer"),
            PrinterColumn("Microbatches", ".spec.topology.microbatches", "Microbatches of an iteration.", "integer"),
            PrinterColumn("GPU", ".spec.topology.gpuModel", "Name of the GPUs."),
            PrinterColumn(
                "T", ".spec.iterationTimeSeconds", "Measured seconds of an iteration at default clocks.", "number"
            ),
            AGE,
            PrinterColumn("Joules", ".spec.energyPerIterationJoules", "Joules of that iteration.", "number", wide=True),
            PrinterColumn("Job", ".spec.job", "The job in which it was measured.", wide=True),
        ),
    ),
    ApiKind(
        name="JobPlan",
        short="jplan",
        description="A JobPlan tells the agents on the nodes of one job which clock to hold for which work, and from "
        "which iteration on. Joulepath writes it for an EnergyPlan; deleting it returns the GPUs to default clocks.",
        spec=JobPlanSpec,
        as_written=True,
        columns=(
            PrinterColumn("Plan", ".spec.energyPlan", "The EnergyPlan that it was made for."),
            PrinterColumn("Job", ".spec.job", "The training job."),
            PrinterColumn("Purpose", ".spec.purpose", "Sweep profiles, Enforce saves."),
            PrinterColumn("Activate", ".spec.activateAt", "The iteration from which on it is in force.", "integer"),
            AGE,
            PrinterColumn("Attempt", ".spec.attempt", "The attempt that it was made for.", "integer", wide=True),
            PrinterColumn("Hash", ".spec.hash", "What nodes report when they have it.", wide=True),
        ),
    ),
    ApiKind(
        name="NodeReport",
        short="nreport",
        description="A NodeReport is what the Joulepath agent of one node knows of it: its GPUs, and what became of "
        "the containers on it. It has the node's name; only that node's agent writes it.",
        status=NodeReportStatus,
        namespaced=False,
        columns=(
            PrinterColumn("GPUs", ".status.gpus[*].model", "Name of the node's first GPU."),
            PrinterColumn("Injector", ".status.injector", "Whether the node's injector is there."),
            PrinterColumn("Agent", ".status.agentVersion", "Version of the agent."),
            PrinterColumn("Policy", ".status.policy", "What of the EnergyPolicy is heard there, and whether it rests."),
            AGE,
        ),
    ),
    ApiKind(
        name="NodeState",
        short="nstate",
        description="A NodeState is what the training ranks on one node do now, and which plan is in force. It has the "
        "node's name; only that node's Joulepath agent writes it.",
        status=NodeStateStatus,
        namespaced=False,
        columns=(
            PrinterColumn("Job", ".status.jobs[*].job", "The first job that has ranks here."),
            PrinterColumn("State", ".status.jobs[*].ranks[*].state", "What the agent does for the first rank."),
            AGE,
            PrinterColumn(
                "Reason", ".status.jobs[*].ranks[*].reason", "Why its clocks are the default ones.", wide=True
            ),
        ),
    ),
    ApiKind(
        name="NodeMeasurement",
        short="nmeasure",
        description="A NodeMeasurement is what the training ranks on one node have measured, packed: it may be large. "
        "It has the node's name; only that node's Joulepath agent writes it.",
        status=NodeMeasurementStatus,
        namespaced=False,
        columns=(AGE,),
    ),
)


def definition(kind: ApiKind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": kind.name},
        "metadata": {"type": "object"},
    }
    schema: dict[str, Any] = {"description": kind.description, "type": "object", "properties": properties}
    if kind.spec:
        properties["spec"] = structural(kind.spec, defaults=not kind.as_written)
        schema["required"] = ["spec"]
    if kind.rules:
        schema["x-kubernetes-validations"] = list(kind.rules)
    if kind.status:
        properties["status"] = structural(kind.status)
        if kind.initial_status:
            properties["status"]["default"] = kind.initial_status
    version: dict[str, Any] = {"name": VERSION, "served": True, "storage": True}
    if kind.status:
        version["subresources"] = {"status": {}}
    version["additionalPrinterColumns"] = [column.to_api() for column in kind.columns]
    version["schema"] = {"openAPIV3Schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            # What users made and measured stays when the release goes.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["joulepath"],
            },
            "versions": [version],
        },
    }
