"""The charts without a cluster: what they render, what they refuse, and what others' checks have to say about it."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import yaml

import generated
import manifests
import values
from charts import ROOT, Charts, Refused, binaries

charts = None


def setUpModule():
    global charts
    update = os.environ.get("UPDATE_CHARTS")
    if update:
        generated.write([*generated.from_values(), *generated.for_charts()])
    charts = Charts()
    unittest.addModuleCleanup(charts.close)
    if update:
        generated.write(generated.from_renders(charts))


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def strings(thing):
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list):
        return [text for item in thing for text in strings(item)]
    return [thing] if isinstance(thing, str) else []


class Rendering(unittest.TestCase):
    maxDiff = None

    def test_every_file_that_is_made_from_the_charts_is_what_they_make(self):
        expected = dict([*generated.from_values(), *generated.for_charts(), *generated.from_renders(charts)])
        for path, text in expected.items():
            with self.subTest(path=path.relative_to(ROOT)):
                self.assertTrue(path.exists(), "UPDATE_CHARTS=1 make test-helm writes it")
                self.assertEqual(path.read_text(), text, "UPDATE_CHARTS=1 make test-helm writes it anew")
        self.assertEqual(sorted(generated.GOLDEN.iterdir()), sorted(path for path in expected if path.parent == generated.GOLDEN), "no render is left over")

    def test_lint_finds_nothing(self):
        for name, chart, file in generated.cases():
            with self.subTest(name):
                charts.run("lint", "--strict", charts.path(chart), "--values", file)
        charts.run("lint", "--strict", charts.path("outrigger-sidecar"))

    def test_charts_image_and_program_are_of_one_version(self):
        program = (ROOT / "Cargo.toml").read_text().split('version = "', 1)[1].split('"')[0]
        for chart in ["outrigger", "outrigger-sidecar"]:
            metadata = yaml.safe_load((ROOT / "helm" / chart / "Chart.yaml").read_text())
            self.assertEqual([metadata["version"], metadata["appVersion"]], [program, program], chart)
        self.assertEqual(yaml.safe_load((ROOT / "helm/outrigger-sidecar/values.yaml").read_text())["image"]["tag"], program)

    def test_every_value_has_a_comment(self):
        for chart in ["outrigger", "outrigger-sidecar"]:
            self.assertEqual(values.undocumented((ROOT / "helm" / chart / "values.yaml").read_text()), [])

    def test_notes_say_the_next_command(self):
        def notes(*arguments):
            out = charts.run("install", "demo", charts.path("outrigger"), "--dry-run=client", *arguments)
            return out.split("NOTES:")[1]

        self.assertIn("helm test demo", notes())
        self.assertIn("The brokers are not set here", notes())
        brokers = ["--set", "sidecar.config.kafka.bootstrap_servers=kafka:9092"]
        self.assertNotIn("The brokers are not set here", notes(*brokers))
        gateway = ["--set", "gateway.enabled=true,gateway.tls.existingSecret=c,gateway.tokens.existingSecret=t"]
        self.assertIn("rollout status deployment/demo-outrigger-gateway", notes(*brokers, *gateway))
        self.assertIn("nothing runs", notes("--set", "injector.enabled=false"))

    def test_a_user_name_that_yaml_takes_for_a_boolean_stays_a_name(self):
        settings = ["--set-string", "outrigger-sidecar.kafka.sasl.existingSecret=yes,outrigger-sidecar.existingConfigMap.name=no,outrigger-sidecar.extraEnvVarsCM=on"]
        [workload] = [d for d in charts.objects("app", *settings) if d["kind"] == "Deployment"]
        self.assertEqual(manifests.kubernetes([workload], "1.36"), [])
        self.assertLessEqual({"yes", "no", "on"}, set(strings(workload)))

    def test_configuration_travels_in_the_environment_as_the_program_reads_it(self):
        tree = {"kafka": {"bootstrap_servers": "a:1,b:2", "properties": {"client.rack": "z"}}, "publish": {"max_record_bytes": 5000000}, "log": {"level": "info"}}
        tree |= {"kafka": tree["kafka"] | {"allow_auto_create_topics": False, "client_id": None}}
        rendered = charts.objects("app", "--set-json", f"outrigger-sidecar.config={json.dumps(tree)}", "--set", "outrigger-sidecar.configAs=environment")
        [workload] = [d for d in rendered if d["kind"] != "ConfigMap"]
        env = {e["name"]: e.get("value") for e in workload["spec"]["template"]["spec"]["initContainers"][0]["env"]}
        self.assertEqual(
            {name: value for name, value in env.items() if name.split("__")[0] in ["OUTRIGGER_KAFKA", "OUTRIGGER_PUBLISH", "OUTRIGGER_LOG"]},
            {
                "OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS": "a:1,b:2",
                "OUTRIGGER_KAFKA__PROPERTIES__CLIENT_RACK": "z",
                "OUTRIGGER_KAFKA__ALLOW_AUTO_CREATE_TOPICS": "false",
                "OUTRIGGER_PUBLISH__MAX_RECORD_BYTES": "5000000",
                "OUTRIGGER_LOG__LEVEL": "info",
            },
        )
        self.assertEqual(len(rendered), 1, "and needs no ConfigMap")


class Program(unittest.TestCase):
    """What the charts say to the program is what it knows."""

    def variables(self, wanted):
        rendered = [d for name, chart, file in generated.cases() for d in charts.objects(chart, "--values", file)]
        secure = yaml.safe_load((ROOT / "helm/outrigger/ci/injector-secure-values.yaml").read_text())["sidecar"]
        rendered += charts.objects("app", "--set-json", f"outrigger-sidecar={json.dumps(secure | {'configAs': 'environment'})}")
        pods = [d["spec"]["template"]["spec"] if d["kind"] == "Deployment" else d["spec"] for d in rendered if d["kind"] in ["Deployment", "Pod"]]
        containers = [c for pod in pods for c in pod.get("initContainers", []) + pod["containers"]]
        return {e["name"] for c in containers for e in c.get("env", []) if e["name"].startswith("OUTRIGGER_") and wanted(e["name"])}

    def test_every_setting_is_a_configuration_key(self):
        readme = (ROOT / "README.md").read_text().split("<!-- configuration -->")[1].split("<!-- /configuration -->")[0]
        known = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
        settings = {name.removeprefix("OUTRIGGER_").lower().replace("__", ".") for name in self.variables(lambda name: "__" in name)}
        self.assertGreater(len(settings), 20)
        self.assertEqual([s for s in settings if s not in known and not s.startswith("kafka.properties.")], [])

    def test_every_variable_of_a_client_is_one_that_the_commands_read(self):
        client = (ROOT / "src/cli/client.rs").read_text()
        variables = self.variables(lambda name: "__" not in name) - {"OUTRIGGER_SOCKET"}
        self.assertGreater(len(variables), 4)
        self.assertEqual([v for v in variables if f'"{v}"' not in client], [])


class OneContainer(unittest.TestCase):
    """The library's container, sidecar.yaml, the kustomize component and the policy's CEL are one thing."""

    def setUp(self):
        self.part = yaml.safe_load(generated.parts(charts))

    def test_sidecar_yaml_is_the_librarys(self):
        self.assertEqual(yaml.safe_load((generated.KUBERNETES / "sidecar.yaml").read_text()), self.part)
        self.assertEqual(list(self.part), ["container", "volumes", "env", "volumeMounts"])

    def test_kustomize_gives_labelled_workloads_the_same_container_first(self):
        directory = charts.directory / "kustomize"
        directory.mkdir()
        pod = {"initContainers": [{"name": "own", "image": "x"}], "containers": [{"name": "app", "image": "x"}]}
        label = {"outrigger.io/sidecar": "true"}

        def workload(kind, api, labels, spec):
            return {"apiVersion": api, "kind": kind, "metadata": {"name": kind.lower() + str(len(labels)), "labels": labels}, "spec": spec}

        template = {"template": {"spec": pod}}
        workloads = [workload(kind, "apps/v1", label, template) for kind in ["Deployment", "StatefulSet", "DaemonSet"]]
        workloads += [workload("Job", "batch/v1", label, template), workload("CronJob", "batch/v1", label, {"jobTemplate": {"spec": template}})]
        workloads += [workload("Deployment", "apps/v1", {}, template)]
        (directory / "workloads.yaml").write_text(yaml.dump_all(workloads))
        component = os.path.relpath((generated.KUBERNETES / "component").resolve(), directory.resolve())
        (directory / "kustomization.yaml").write_text(yaml.dump({"resources": ["workloads.yaml"], "components": [component]}))
        done = subprocess.run([binaries() / "kubectl", "kustomize", directory], check=True, capture_output=True, text=True, timeout=60)
        built = documents(done.stdout)
        self.assertEqual(len(built), 6)
        for document in built:
            with self.subTest(document["metadata"]["name"]):
                spec = document["spec"].get("jobTemplate", document)["spec"] if document["kind"] == "CronJob" else document["spec"]
                spec = spec["template"]["spec"]
                if document["metadata"].get("labels"):
                    self.assertEqual(spec["initContainers"], [self.part["container"], {"name": "own", "image": "x"}])
                    self.assertEqual(spec["volumes"], self.part["volumes"])
                else:
                    self.assertEqual(spec, pod)

    def test_every_text_of_the_container_stands_in_the_policy(self):
        rendered = documents((generated.KUBERNETES / "injector.yaml").read_text())
        [policy] = [d for d in rendered if d["kind"] == "MutatingAdmissionPolicy"]
        said = " ".join(strings(policy))
        wanted = set(strings(self.part))
        self.assertGreater(len(wanted), 30)
        self.assertEqual([text for text in wanted if json.dumps(text) not in said], [])


class Refusals(unittest.TestCase):
    def assert_refused(self, says, *arguments, chart="outrigger", **named):
        with self.assertRaisesRegex(Refused, says):
            charts.template(chart, *arguments, **named)

    def test_a_typo(self):
        self.assert_refused("additional properties 'gatewy' not allowed", "--set", "gatewy.enabled=true")
        self.assert_refused("additional properties 'enable' not allowed", "--set", "injector.enable=false")
        self.assert_refused("additional properties 'confg' not allowed", "--set", "sidecar.confg.kafka=x")
        self.assert_refused("additional properties 'tagg' not allowed", "--set", "outrigger-sidecar.image.tagg=x", chart="app")

    def test_a_value_of_the_wrong_kind(self):
        self.assert_refused("got string, want boolean", "--set", "gateway.enabled=perhaps")
        self.assert_refused("must be one of 'Fail', 'Ignore'", "--set", "injector.failurePolicy=Perhaps")
        self.assert_refused("must be one of .*'SCRAM-SHA-256'", "--set", "sidecar.kafka.sasl.mechanism=GSSAPI")

    def test_injection_before_kubernetes_1_36(self):
        for version in ["1.29.0", "1.35.9"]:
            self.assert_refused(f"needs Kubernetes 1.36 or newer, and this is v{version}. Set injector.enabled=false", version=version)
        for version in ["1.36.0", "1.36.0-rc.1", "v1.36.3-gke.100", "1.37.0"]:
            self.assertIn("kind: MutatingAdmissionPolicy", charts.template("outrigger", version=version))

    def test_kubernetes_without_native_sidecars(self):
        self.assert_refused("requires kubeVersion: >=1.29.0-0", "--set", "injector.enabled=false", version="1.28.9")

    def test_a_gateway_without_tls_authentication_or_brokers(self):
        tls, tokens = "gateway.tls.existingSecret=c", "gateway.tokens.existingSecret=t"
        brokers = "sidecar.config.kafka.bootstrap_servers=kafka:9092"
        self.assert_refused("the gateway needs TLS. Set gateway.tls.existingSecret", "--set", f"gateway.enabled=true,{tokens},{brokers}")
        self.assert_refused("the gateway needs authentication. Set gateway.tokens.existingSecret", "--set", f"gateway.enabled=true,{tls},{brokers}")
        self.assert_refused("the gateway needs to know its brokers. Set sidecar.config.kafka.bootstrap_servers", "--set", f"gateway.enabled=true,{tls},{tokens}")

    def test_a_sidecar_that_is_open_to_the_network(self):
        says = "needs TLS and authentication. Set listen.tls.existingSecret"
        self.assert_refused(says, "--set", "outrigger-sidecar.listen.host=0.0.0.0", chart="app")
        self.assert_refused(says, "--set", "outrigger-sidecar.listen.host=0.0.0.0,outrigger-sidecar.listen.tls.existingSecret=c", chart="app")
        tokens = "outrigger-sidecar.listen.tokens.existingSecret=t"
        charts.template("app", "--set", f"outrigger-sidecar.listen.host=0.0.0.0,outrigger-sidecar.listen.tls.existingSecret=c,{tokens}")

    def test_a_list_that_no_environment_can_carry(self):
        self.assert_refused(r"config has a list \(OUTRIGGER_ACCESS__RULES\).*existingConfigMap.name", "--set-json", 'sidecar.config={"access":{"rules":[]}}')

    def test_two_sources_of_the_configuration_file(self):
        settings = "outrigger-sidecar.config.log.level=info,outrigger-sidecar.existingConfigMap.name=mine"
        self.assert_refused("both config and existingConfigMap.name are set", "--set", settings, chart="app")


class Schemas(unittest.TestCase):
    def test_kubernetes_takes_what_is_rendered_in_every_supported_version(self):
        checked = 0
        for name, chart, file in generated.cases():
            for version in manifests.VERSIONS:
                with self.subTest(name, version=version):
                    try:
                        rendered = charts.objects(chart, "--values", file, version=f"{version}.0")
                    except Refused as refusal:
                        # Injection before 1.36, which a test of its own is about.
                        self.assertRegex(str(refusal), "needs Kubernetes 1.36 or newer")
                        self.assertLess(int(version.split(".")[1]), 36)
                        continue
                    self.assertEqual(manifests.kubernetes(rendered, version), [])
                    checked += len(rendered)
        self.assertGreater(checked, 150)

    def test_the_schemas_refuse_an_unknown_key(self):
        [workload] = [d for d in charts.objects("app") if d["kind"] == "Deployment"]
        workload["spec"]["template"]["spec"]["initContainers"][0]["restartPolice"] = "Always"
        self.assertRegex(manifests.kubernetes([workload], "1.36")[0], "restartPolice")

    def test_the_prometheus_operator_takes_what_is_rendered(self):
        rendered = charts.objects("outrigger", "--values", ROOT / "helm/outrigger/ci/gateway-values.yaml")
        self.assertEqual(manifests.operator(rendered), (3, []))
        [monitor] = [d for d in rendered if d["kind"] == "PodMonitor"]
        monitor["spec"]["podMetricsEndpoints"][0]["prt"] = "x"
        self.assertRegex(manifests.operator([monitor])[1][0], '"prt"\\S* does not exist')

    def test_grafana_takes_the_dashboard(self):
        dashboard = json.loads((ROOT / "deploy/grafana/outrigger.json").read_text())
        self.assertEqual(manifests.grafana(dashboard), [])
        panel = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
        panel["fieldConfig"]["defaults"]["custom"]["lineWith"] = 1
        self.assertRegex(manifests.grafana(dashboard)[0], "lineWith")

    def test_manifests_for_those_without_helm_are_valid(self):
        for file, version in [("deployment.yaml", "1.29"), ("injector.yaml", "1.36")]:
            self.assertEqual(manifests.kubernetes(documents((generated.KUBERNETES / file).read_text()), version), [])

    def test_files_are_taken_into_their_objects_whole(self):
        rendered = charts.objects("outrigger", "--values", ROOT / "helm/outrigger/ci/gateway-values.yaml")
        [rule] = [d for d in rendered if d["kind"] == "PrometheusRule"]
        self.assertEqual(rule["spec"], yaml.safe_load((ROOT / "helm/outrigger/files/alerts.yaml").read_text()))
        [dashboard] = [d for d in rendered if d["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        self.assertEqual(json.loads(dashboard["data"]["outrigger.json"]), json.loads((ROOT / "helm/outrigger/files/dashboard.json").read_text()))


class Lint(unittest.TestCase):
    # What kube-score asks for and is not done, and why.
    SCORE_EXCEPTIONS = {
        "container-image-pull-policy": "IfNotPresent: a tag of ours never changes what it means, and a registry's outage must not stop a pod",
        "container-ephemeral-storage-request-and-limit": "nothing is written to disk but logs, whose size the kubelet bounds",
        "pod-networkpolicy": "the test's pods live for seconds; egress of the gateway is the user's to know, and networkPolicy.egress takes it",
    }

    def test_kube_score_finds_nothing_that_has_no_reason(self):
        for case in ["outrigger-gateway", "outrigger-injector"]:
            # A limit on CPU throttles the sidecar, and with it the application, while the node is idle.
            command = [binaries() / "kube-score", "score", "--output-format", "json", "--kubernetes-version", "v1.36", "--ignore-container-cpu-limit"]
            done = subprocess.run([*command, generated.GOLDEN / f"{case}.yaml"], capture_output=True, text=True, timeout=60)
            objects = json.loads(done.stdout)
            self.assertTrue(objects)
            found = [
                f"{scored['object_name']}: {check['check']['id']}: {comment['path']} {comment['summary']}"
                for scored in objects
                for check in scored["checks"]
                if not check["skipped"] and check["grade"] < 10 and check["check"]["id"] not in self.SCORE_EXCEPTIONS
                for comment in check["comments"] or []
            ]
            self.assertEqual(found, [])

    def test_hadolint_finds_nothing_in_the_dockerfile(self):
        hadolint = pathlib.Path(sys.executable).parent / "hadolint"
        done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stdout + done.stderr, "")
        self.assertEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
