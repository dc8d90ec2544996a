"""Every file of the repository that is made from the charts or for them, with what it should hold.

`UPDATE_CHARTS=1 make test-helm` writes them anew. Read the difference before it is committed: it is what users' clusters will see.
"""

import pathlib
import sys
import textwrap

import yaml

import values
from charts import ROOT

sys.path.insert(0, str(ROOT / "deploy/grafana"))

import dashboard

GOLDEN = ROOT / "tests/helm/golden"
KUBERNETES = ROOT / "deploy/kubernetes"


def cases():
    """Each chart with each of its ci/*-values.yaml: (name, chart, values file)."""
    for chart, directory in [("outrigger", ROOT / "helm/outrigger/ci"), ("app", ROOT / "tests/helm/app/ci")]:
        for file in sorted(directory.glob("*-values.yaml")):
            yield f"{chart}-{file.name.removesuffix('-values.yaml')}", chart, file


def from_values():
    """The path of each file that follows from a values.yaml alone, and its text."""
    for chart in ["outrigger", "outrigger-sidecar"]:
        directory = ROOT / "helm" / chart
        text = (directory / "values.yaml").read_text()
        yield directory / "values.schema.json", values.schema(text)
        yield directory / "README.md", with_table((directory / "README.md").read_text(), values.table(text))


def for_charts():
    """The path of each file that a chart carries and does not own, and its text: a chart cannot read what lies outside it."""
    files = ROOT / "helm/outrigger/files"
    yield files / "alerts.yaml", (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    for path in [ROOT / "deploy/grafana/outrigger.json", files / "dashboard.json"]:
        yield path, dashboard.text()


def from_renders(charts):
    """The path of each file that the charts render, and its text."""
    for name, chart, file in cases():
        yield GOLDEN / f"{name}.yaml", charts.template(chart, "--values", file)
    yield from manifests(charts)


def write(files):
    for path, text in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def with_table(readme, table):
    before, rest = readme.split("<!-- values -->\n")
    _, after = rest.split("<!-- /values -->\n")
    return f"{before}<!-- values -->\n{table}<!-- /values -->\n{after}"


def parts(charts):
    """What the library gives a pod, as text: container, volumes, env and volumeMounts."""
    rendered = charts.template("parts")
    return rendered.split("# Source: parts/templates/parts.yaml\n")[1].strip() + "\n"


class Plain(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as blocks, nothing by reference, lists indented."""

    def ignore_aliases(self, data):
        return True

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


Plain.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def dump(document):
    return yaml.dump(document, Dumper=Plain, sort_keys=False, width=160)


def manifests(charts):
    """deploy/kubernetes: for those who do without Helm."""
    made = "# Made from the chart helm/outrigger-sidecar; a change belongs there.\n"
    text = parts(charts)
    part = yaml.safe_load(text)
    yield (
        KUBERNETES / "sidecar.yaml",
        made + "# What a pod gets: the first of its init containers, its volumes, and the env and volumeMounts of each other container.\n" + text,
    )

    pod = {"initContainers": [part["container"]], "volumes": part["volumes"]}
    template = {"spec": {"template": {"spec": pod}}}
    any_kind = {"apiVersion": "any", "kind": "any", "metadata": {"name": "any"}}
    component = KUBERNETES / "component"
    yield component / "workload.yaml", made + dump(any_kind | template)
    yield component / "cronjob.yaml", made + dump(any_kind | {"spec": {"jobTemplate": template}})

    app = {"name": "app", "image": "registry.example/app:1", "env": part["env"], "volumeMounts": part["volumeMounts"]}
    labels = {"app": "app"}
    configuration = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "outrigger"}, "data": {"outrigger.yaml": "kafka:\n  bootstrap_servers: kafka:9092\n"}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"initContainers": [part["container"]], "containers": [app], "volumes": part["volumes"]}},
        },
    }
    yield (
        KUBERNETES / "deployment.yaml",
        made + "# A Deployment with the sidecar, and its configuration: the whole of it, to copy from.\n" + "---\n".join([dump(configuration), dump(deployment)]),
    )

    injector = charts.template("outrigger", "--values", ROOT / "helm/outrigger/ci/injector-values.yaml", "--skip-tests", namespace="outrigger", release="outrigger")
    of_helm = ["# Source: ", "    app.kubernetes.io/managed-by: ", "    helm.sh/chart: "]
    injector = "".join(line for line in injector.splitlines(keepends=True) if not any(line.startswith(mark) for mark in of_helm))
    yield (
        KUBERNETES / "injector.yaml",
        textwrap.dedent(
            """\
            # Made from the chart helm/outrigger; a change belongs there.
            # Injection by the pod label outrigger.io/inject=true on Kubernetes 1.36 or newer. Set your brokers (OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS) before you apply it.
            """
        )
        + injector.removeprefix("---\n"),
    )
