"""Whether manifests are what Kubernetes and the Prometheus operator take, and the dashboard what Grafana does: their schemas, strictly."""

import json
import os
import pathlib
import subprocess

import jsonschema
import kubernetes_validate

from charts import ROOT

VERSIONS = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
OPERATOR = "monitoring.coreos.com/v1"


def kubernetes(documents, version):
    """What is wrong with the documents for this Kubernetes version; unknown keys are wrong."""
    problems = []
    for document in documents:
        if document["apiVersion"] == OPERATOR:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except jsonschema.ValidationError as error:
            problems.append(f"{document['kind']} {document['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problems.append(str(error))
    return problems


def operator(documents):
    """What the types of the Prometheus operator have against the documents, checked by the TypeScript compiler: unknown keys are wrong."""
    documents = [document for document in documents if document["apiVersion"] == OPERATOR]
    lines = [f"import type * as operator from '@kubernetes-models/prometheus-operator/{OPERATOR}';"]
    lines += [f"export const d{number}: operator.I{document['kind']} = {json.dumps(document)};" for number, document in enumerate(documents)]
    return len(documents), complaints(lines)


def grafana(dashboard):
    """What Grafana's own types have against a dashboard and the options of its panels; unknown keys are wrong, what is left out has a default."""
    raw = "./node_modules/@grafana/schema/dist/types/raw"
    panels = dashboard["panels"]
    kinds = {panel["type"]: panel["type"].replace("-", "") for panel in panels if panel["type"] != "row"}
    lines = [f"import type {{ Dashboard, Panel, RowPanel }} from '{raw}/dashboard/x/types.gen';"]
    lines += [f"import type * as {module} from '{raw}/composable/{module}/panelcfg/x/types.gen';" for module in sorted(kinds.values())]
    # JSON has the values of enums, not their names.
    lines.append("type Plain<T> = T extends string ? `${T}` : T extends number ? number : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;")

    def check(kind, value):
        lines.append(f"export const d{len(lines)}: {kind} = {json.dumps(value)};")

    check("Plain<Dashboard>", {key: value for key, value in dashboard.items() if key != "panels"})
    for panel in panels:
        if panel["type"] == "row":
            check("Plain<RowPanel>", panel)
            continue
        module = kinds[panel["type"]]
        check("Plain<Panel>", panel)
        check(f"Partial<Plain<{module}.Options>>", panel["options"])
        custom = panel["fieldConfig"]["defaults"].get("custom")
        if custom:
            check(f"Partial<Plain<{module}.FieldConfig>>", custom)
    return complaints(lines)


def complaints(lines):
    """What the TypeScript compiler has to say about these lines."""
    directory = packages()
    source = directory / f"check-{os.getpid()}.ts"
    source.write_text("\n".join(lines))
    try:
        command = ["node", directory / "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", source.name]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    finally:
        source.unlink()
    return done.stdout.splitlines()


def packages():
    """The directory with the types and the compiler."""
    return pathlib.Path(subprocess.run([ROOT / "tests/node/install"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
