"""The chart outrigger and `outrigger inject` on a real API server: who gets the sidecar, who does not, and what the user is told."""

import json
import pathlib
import sys
import threading
import unittest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "helm")]

import yaml

from charts import ROOT, Charts
from command import injected, rewritten
from lab import Lab, Refused
from pods import INJECT, container, deployment, environment, mounts, names, pod, restricted, sidecars, without_token

RELEASE = "rel"
HOME = "outrigger"
BROKERS = "sidecar.config.kafka.bootstrap_servers=kafka:9092"
lab = None
charts = None


def setUpModule():
    global lab, charts
    charts = Charts()
    unittest.addModuleCleanup(charts.close)
    lab = unittest.enterModuleContext(Lab())
    for namespace in [HOME, "team", "excluded", "strict"]:
        lab.kubectl("create", "namespace", namespace)
        lab.until("a service account", lambda: lab.find("serviceaccount", "default", namespace))
    lab.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    lab.kubectl("label", "namespace", "excluded", "outrigger=no")
    release("install")
    settled(lambda: sidecars(admitted(pod())) and are_warned())


def release(verb, *arguments, namespace_selector=True):
    selector = {"matchExpressions": [{"key": "outrigger", "operator": "NotIn", "values": ["no"]}]}
    lab.helm(
        verb, RELEASE, charts.path("outrigger"), "--namespace", HOME, "--set-string", BROKERS,
        "--set-json", f"injector.namespaceSelector={json.dumps(selector)}", *arguments,
    )  # fmt: skip


def settled(condition):
    """Waits for a policy's change to reach the API server's admission."""
    return lab.until("the policies are in force", condition)


def are_warned():
    """Whether both policies that only warn are in force: each reaches the admission by itself."""
    return warnings(pod(hostNetwork=True)) and warnings(mistaken())


def mistaken():
    """A Deployment with the label that its pods should have."""
    return deployment("mistaken", pod(labels={"app": "mistaken"}), labels=INJECT)


def admission(manifest, namespace="default"):
    """The pod as it would be created, and the warnings."""
    return lab.create(manifest, "--dry-run=server", "--namespace", namespace)


def admitted(manifest, namespace="default"):
    return admission(manifest, namespace)[0]


def warnings(manifest, namespace="default"):
    return admission(manifest, namespace)[1]


class Injection(unittest.TestCase):
    maxDiff = None

    def assert_injected(self, created, init=()):
        self.assertEqual(names(created["spec"]["initContainers"]), ["outrigger", *init])
        self.assertEqual(len(sidecars(created)), 1)
        for c in created["spec"]["initContainers"][1:] + created["spec"]["containers"]:
            self.assertEqual(environment(c)["OUTRIGGER_ADDRESS"], "127.0.0.1:7420")
            self.assertEqual(environment(c)["OUTRIGGER_SOCKET"], "unix:///run/outrigger/outrigger.sock")
            self.assertEqual(mounts(c)["/run/outrigger"], "outrigger-socket")
        self.assertEqual([n for n in names(created["spec"]["volumes"]) if n.startswith("outrigger-")], ["outrigger-socket", "outrigger-config"])

    def test_pods_with_none_one_and_several_init_containers_get_the_sidecar_once_and_first(self):
        for init in [[], ["migrate"], ["migrate", "warm", "seed"]]:
            with self.subTest(init=init):
                created, warned = lab.create(pod(f"init-{len(init)}", init=[container(n) for n in init], containers=[container("app"), container("helper")]))
                self.assert_injected(created, init)
                self.assertEqual(warned, "")

    def test_the_pods_of_a_deployment_get_the_sidecar(self):
        lab.create(deployment("orders"))
        find = lambda: json.loads(lab.kubectl("get", "pods", "-l", "app=orders", "-o", "json"))["items"]
        [created] = lab.until("the Deployment has a pod", find)
        self.assert_injected(created)

    def test_a_pod_without_the_label_is_left_alone(self):
        for labels in [{}, {"outrigger.io/inject": "false"}]:
            created, warned = admission(pod(labels=labels))
            self.assertEqual(warned, "")
            self.assertNotIn("initContainers", created["spec"])
            self.assertEqual(without_token(created["spec"]["volumes"]), [])
            self.assertNotIn("env", created["spec"]["containers"][0])

    def test_policy_library_and_command_give_the_same_container_field_by_field(self):
        settings = [
            "--set-string", "outrigger-sidecar.config.kafka.bootstrap_servers=kafka:9092", "--set", "outrigger-sidecar.configAs=environment",
            "--set", "outrigger-sidecar.existingConfigMap.name=outrigger,outrigger-sidecar.existingConfigMap.optional=true",
        ]  # fmt: skip
        [workload] = [o for o in charts.objects("app", *settings) if o["kind"] == "Deployment"]
        template = workload["spec"]["template"]
        by_library = admitted({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": template["spec"]})
        by_policy = admitted(pod())
        by_command = admitted(injected(pod(labels={}), "--bootstrap-servers", "kafka:9092"))
        for other in [by_library, by_command]:
            self.assertEqual(without_token(by_policy["spec"]["initContainers"]), without_token(other["spec"]["initContainers"]))
            self.assertEqual(without_token(by_policy["spec"]["volumes"]), without_token(other["spec"]["volumes"]))
        for by in [by_policy, by_library, by_command]:
            self.assertEqual(by["spec"]["containers"][0].pop("name"), "app")
            by["spec"]["containers"][0].pop("image")
            self.assertEqual(without_token(by_policy["spec"]["containers"]), without_token(by["spec"]["containers"]))

    def test_a_pod_that_has_the_librarys_sidecar_already_keeps_it_alone(self):
        settings = ["--set-string", "outrigger-sidecar.image.tag=mine", "--set-string", "outrigger-sidecar.config.kafka.bootstrap_servers=kafka:9092"]
        [workload] = [o for o in charts.objects("app", *settings) if o["kind"] == "Deployment"]
        spec = workload["spec"]["template"]["spec"]
        spec["containers"].append(container("forgotten"))
        created, warned = admission({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "labels": INJECT}, "spec": spec})
        self.assert_injected(created)
        self.assertTrue(sidecars(created)[0]["image"].endswith(":mine"))
        self.assertEqual(warned, "")

    def test_what_a_container_says_itself_stays(self):
        own = container("app", env=[{"name": "OUTRIGGER_ADDRESS", "value": "mine"}, {"name": "A", "value": "b"}], volumeMounts=[{"name": "data", "mountPath": "/data"}])
        created = admitted(pod(containers=[own], volumes=[{"name": "data", "emptyDir": {}}]))
        [app] = created["spec"]["containers"]
        self.assertEqual(environment(app) | {"OUTRIGGER_SOCKET": ""}, {"OUTRIGGER_ADDRESS": "mine", "A": "b", "OUTRIGGER_SOCKET": ""})
        self.assertEqual(mounts(app)["/data"], "data")
        self.assertEqual(mounts(app)["/run/outrigger"], "outrigger-socket")

    def test_a_container_that_another_policy_adds_finds_the_sidecar_too(self):
        expression = """has(object.metadata.labels) && "late" in object.metadata.labels && !object.spec.containers.exists(c, c.name == "late")
            ? [JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{name: "late", image: "registry.example/late:1"}}] : []"""
        rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
        api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "zz-late"}}
        spec = {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": rules},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        }  # fmt: skip
        lab.create({**api, "kind": "MutatingAdmissionPolicy", "spec": spec})
        lab.create({**api, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "zz-late"}})
        labels = INJECT | {"late": ""}
        created = settled(lambda: (c := admitted(pod(labels=labels))) and len(c["spec"]["containers"]) == 2 and c)
        lab.kubectl("delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", "zz-late")
        self.assert_injected(created)

    def test_the_restricted_standard_admits_an_injected_pod(self):
        created, _ = lab.create(pod("strict", containers=[restricted("app")]), "--namespace", "strict")
        self.assert_injected(created)


class Command(unittest.TestCase):
    """`outrigger inject`, whose pods are the policy's."""

    maxDiff = None

    def assert_same(self, manifest, *arguments):
        """The pod by the policy and the pod by the command, which has no label, are one."""
        by_policy = admitted(manifest)
        unlabelled = manifest | {"metadata": {key: value for key, value in manifest["metadata"].items() if key != "labels"}}
        by_command = admitted(injected(unlabelled, *arguments, "--bootstrap-servers", "kafka:9092"))
        self.assertEqual(without_token(by_command["spec"]), without_token(by_policy["spec"]))

    def test_pods_with_lists_of_their_own_are_the_policys(self):
        own = {"env": [{"name": "A", "value": "b"}, {"name": "OUTRIGGER_ADDRESS", "value": "mine"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        manifest = pod(init=[container("migrate"), container("warm", **own)], containers=[container("app", **own), container("helper")])
        manifest["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
        self.assert_same(manifest)

    def test_annotations_of_the_pod_are_read_as_the_policy_reads_them(self):
        settings = {
            "image": "mirror.example/outrigger:3", "config-map": "mine", "secret": "credentials", "cpu-limit": "2", "memory-request": "128Mi",
            "log.level": "trace", "kafka.bootstrap_servers": "other:9092", "kafka.properties.client.rack": "z", "listen.tcp": "0.0.0.0:1", "PATH": "/x",
        }  # fmt: skip
        manifest = pod()
        manifest["metadata"]["annotations"] = {f"config.outrigger.io/{key}": value for key, value in settings.items()}
        self.assert_same(manifest)

    def test_the_restricted_standard_admits_the_pod_and_the_policy_adds_nothing(self):
        strict = pod("command", containers=[restricted("app")])
        there = injected(strict)
        created, warned = lab.create(there, "--namespace", "strict")
        self.assertEqual(warned, "")
        self.assertEqual(names(created["spec"]["initContainers"]), ["outrigger"])
        self.assertNotIn("OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS", environment(sidecars(created)[0]), "which the policy would have set")
        self.assertEqual(json.loads(rewritten("uninject", json.dumps(there))), strict)

    def test_workloads_are_taken_by_the_api_server(self):
        for language in ["go", "java", "node", "python"]:
            example = (ROOT / f"deploy/examples/{language}/kubernetes.yaml").read_text()
            lab.kubectl("apply", "--dry-run=server", "-f", "-", input=rewritten("inject", example))
            self.assertEqual(rewritten("uninject", rewritten("inject", example)), example)


class Settings(unittest.TestCase):
    """Annotations of the namespace and of the pod."""

    def annotated(self, **settings):
        annotations = {f"config.outrigger.io/{key.replace('__', '.').replace('--', '-')}": value for key, value in settings.items()}
        manifest = pod()
        manifest["metadata"]["annotations"] = annotations
        return manifest

    def namespace(self, **settings):
        annotations = [f"{key}={value}" for key, value in self.annotated(**settings)["metadata"]["annotations"].items()]
        lab.kubectl("annotate", "namespace", "team", *annotations)
        self.addCleanup(lambda: lab.kubectl("annotate", "namespace", "team", *[a.split("=")[0] + "-" for a in annotations]))
        return settled(lambda: (c := admitted(pod(), "team")) and sidecars(c)[0]["image"] == settings["image"] and c)

    def sources(self, created):
        """The names of the ConfigMaps and Secrets that the sidecar sees."""
        [volume] = [v for v in created["spec"]["volumes"] if v["name"] == "outrigger-config"]
        return [list(source.values())[0]["name"] for source in volume["projected"]["sources"]]

    def test_a_namespace_overrides_image_config_map_secret_and_configuration(self):
        settings = {"config-map": "mine", "secret": "credentials", "kafka__bootstrap_servers": "other:9092", "log__level": "debug"}
        created = self.namespace(image="mirror.example/outrigger:2", **settings)
        [sidecar] = sidecars(created)
        self.assertEqual(environment(sidecar)["OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS"], "other:9092")
        self.assertEqual(environment(sidecar)["OUTRIGGER_LOG__LEVEL"], "debug")
        self.assertEqual(len(names(sidecar["env"])), len(set(names(sidecar["env"]))), "no variable stands there twice")
        self.assertEqual(self.sources(created), ["mine", "credentials"])

    def test_a_pod_overrides_its_namespace(self):
        # An image of its own: the annotations of another test may still be seen for a moment.
        self.namespace(image="mirror.example/outrigger:4", secret="theirs", log__level="debug", log__format="text")
        created, warned = admission(self.annotated(image="mirror.example/outrigger:3", secret="mine", log__level="trace"), "team")
        self.assertEqual(warned, "")
        [sidecar] = sidecars(created)
        self.assertEqual(sidecar["image"], "mirror.example/outrigger:3")
        self.assertEqual(self.sources(created), ["outrigger", "mine"])
        own = {name: value for name, value in environment(sidecar).items() if "_LOG__" in name or "_KAFKA__" in name}
        self.assertEqual(own, {"OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092", "OUTRIGGER_LOG__FORMAT": "text", "OUTRIGGER_LOG__LEVEL": "trace"})

    def test_a_pod_sets_cpu_and_memory(self):
        created, warned = admission(self.annotated(**{"memory-limit": "1Gi", "cpu-limit": "2", "memory-request": "512Mi"}))
        self.assertEqual(warned, "")
        self.assertEqual(sidecars(created)[0]["resources"], {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "50m", "memory": "512Mi"}})

    def test_where_the_sidecar_listens_and_how_it_is_confined_is_not_overridden_and_told(self):
        created, warned = admission(self.annotated(listen__tcp="0.0.0.0:1", Listen__tcp="0.0.0.0:1", admin__listen="", securityContext="{}", PATH="/x"))
        self.assertEqual(without_token(sidecars(created)), without_token(sidecars(admitted(pod()))))
        for key in ["listen.tcp", "Listen.tcp", "admin.listen", "securityContext", "PATH"]:
            self.assertIn(key, warned)


class Warnings(unittest.TestCase):
    def assert_left_alone(self, manifest, reason, namespace="default"):
        created, warned = admission(manifest, namespace)
        self.assertIn(reason, warned)
        self.assertEqual(warned.count("Warning:"), 1, warned)
        self.assertFalse([c for c in sidecars(created) if c["image"].startswith("ghcr.io/")], "it did not get the sidecar")

    def test_a_pod_on_the_nodes_network(self):
        self.assert_left_alone(pod(hostNetwork=True), "hostNetwork")

    def test_a_static_pod(self):
        static = pod(automountServiceAccountToken=False)
        static["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        self.assert_left_alone(static | {"spec": static["spec"] | {"nodeName": "node"}}, "a static pod")

    def test_a_pod_for_windows(self):
        self.assert_left_alone(pod(os={"name": "windows"}), "a program for Linux")

    def test_a_pod_with_a_container_of_our_name(self):
        self.assert_left_alone(pod(containers=[container("app"), container("outrigger")]), "a container of its own called outrigger")
        self.assert_left_alone(pod(init=[container("outrigger")]), "a container of its own called outrigger")

    def test_a_pod_with_a_volume_of_our_name(self):
        for volume in ["outrigger-socket", "outrigger-config"]:
            self.assert_left_alone(pod(volumes=[{"name": volume, "emptyDir": {}}]), "a volume of its own called outrigger-socket or outrigger-config")

    def test_a_pod_with_a_mount_at_our_path(self):
        for path in ["/run/outrigger", "/run/outrigger/"]:
            own = container("own", volumeMounts=[{"name": "data", "mountPath": path}])
            volumes = [{"name": "data", "emptyDir": {}}]
            self.assert_left_alone(pod(containers=[own], volumes=volumes), "a container mounts something of its own at /run/outrigger")
            self.assert_left_alone(pod(init=[own], volumes=volumes), "a container mounts something of its own at /run/outrigger")

    def test_a_pod_in_a_namespace_that_is_excluded(self):
        self.assert_left_alone(pod(), "was not applied to it", "excluded")

    def test_a_label_on_the_deployment_instead_of_its_pod_template(self):
        self.assertIn("it belongs to the pod template", warnings(mistaken()))
        right = deployment("right", pod(labels=INJECT | {"app": "right"}), labels=INJECT)
        self.assertEqual(warnings(right), "")
        job = {"template": {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [container("app")]}}}
        cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x", "labels": INJECT}, "spec": {"schedule": "@daily", "jobTemplate": {"spec": job}}}
        self.assertIn("it belongs to the pod template", warnings(cron))


class Manifests(unittest.TestCase):
    def test_the_api_server_takes_what_is_for_those_without_helm(self):
        lab.kubectl("apply", "--dry-run=server", "-f", ROOT / "deploy/kubernetes/deployment.yaml")
        said = lab.kubectl("apply", "--dry-run=server", "-f", ROOT / "deploy/kubernetes/injector.yaml")
        self.assertEqual(said.count("created (server dry run)"), 6, said)


class Releases(unittest.TestCase):
    """What changes the release puts it back, so that the order of tests does not matter."""

    maxDiff = None

    def upgraded(self, *arguments, until):
        release("upgrade", *arguments)
        self.addCleanup(lambda: (release("upgrade"), settled(self.is_default)))
        return settled(until)

    def is_default(self):
        return [(s["image"], "capabilities" in s["securityContext"]) for s in sidecars(admitted(pod()))] == [("ghcr.io/outrigger-kafka/outrigger:0.1.0", True)]

    def test_an_upgrade_reaches_new_pods(self):
        created = self.upgraded("--set-string", "sidecar.image.tag=next", "--set-json", 'imagePullSecrets=[{"name":"pull"}]', until=lambda: self.pod_with_tag("next"))
        self.assertEqual(created["spec"]["imagePullSecrets"], [{"name": "pull"}])

    def pod_with_tag(self, tag):
        created = admitted(pod())
        return sidecars(created)[0]["image"].endswith(f":{tag}") and created

    def test_the_restricted_standard_refuses_a_weakened_sidecar(self):
        weak = pod(containers=[restricted("app")])

        def refused():
            try:
                admitted(weak, "strict")
            except Refused as refusal:
                return str(refusal)

        said = self.upgraded("--set", "sidecar.securityContext.capabilities=null", until=refused)
        self.assertRegex(said, 'violates PodSecurity "restricted.*unrestricted capabilities.*container "outrigger"')

    def test_secrets_are_files_of_the_injected_sidecar(self):
        arguments = [
            "--set", "sidecar.kafka.sasl.mechanism=SCRAM-SHA-512,sidecar.kafka.sasl.existingSecret=kafka-user", "--set-string", "sidecar.image.tag=sasl",
        ]  # fmt: skip
        created = self.upgraded(*arguments, until=lambda: self.pod_with_tag("sasl"))
        [sidecar] = sidecars(created)
        self.assertEqual(environment(sidecar)["OUTRIGGER_KAFKA__SASL__PASSWORD_FILE"], "/etc/outrigger/sasl/password")
        [volume] = [v for v in created["spec"]["volumes"] if v["name"] == "outrigger-config"]
        paths = [i["path"] for s in volume["projected"]["sources"] for i in list(s.values())[0]["items"]]
        self.assertEqual(paths, ["outrigger.yaml", "sasl/username", "sasl/password"])

    def test_a_container_with_every_setting_is_the_librarys_too(self):
        values = ROOT / "helm/outrigger/ci/injector-secure-values.yaml"
        settings = yaml.safe_load(values.read_text())["sidecar"]
        settings |= {"configAs": "environment", "existingConfigMap": {"name": "outrigger", "optional": True}}
        library = ["--set-json", f"outrigger-sidecar={json.dumps(settings)}", "--set-string", f"outrigger-{BROKERS}"]
        [workload] = [o for o in charts.objects("app", *library) if o["kind"] == "Deployment"]
        spec = workload["spec"]["template"]["spec"]
        by_library = admitted({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec})
        by_policy = self.upgraded("--values", values, until=lambda: (c := admitted(pod())) and "registry.example" in sidecars(c)[0]["image"] and c)
        self.assertGreater(len(sidecars(by_policy)[0]["env"]), 25)
        self.assertEqual(without_token(sidecars(by_policy)), without_token(sidecars(by_library)))
        self.assertEqual(without_token(by_policy["spec"]["volumes"]), without_token(by_library["spec"]["volumes"]))

    def test_helm_test_runs_an_injected_pod_that_publishes_and_reads_back(self):
        said = {}
        thread = threading.Thread(target=lambda: said.update(out=lab.helm("test", RELEASE, "--namespace", HOME, "--timeout", "60s")))
        thread.start()
        name = f"{RELEASE}-outrigger-test"
        created = lab.until("the test's pod", lambda: lab.find("pod", name, HOME))
        # No kubelet runs it here; its end is told in the kubelet's place.
        lab.kubectl("patch", "pod", name, "-n", HOME, "--subresource=status", "--patch", '{"status": {"phase": "Succeeded"}}')
        thread.join(60)
        self.assertIn("Succeeded", said["out"])
        self.assertEqual(names(created["spec"]["initContainers"]), ["outrigger", "publish"])
        self.assertEqual(created["spec"]["initContainers"][1]["args"][:2], ["publish", "outrigger-test"])
        self.assertEqual(created["spec"]["containers"][0]["args"][:2], ["subscribe", "outrigger-test"])

    def test_the_gateway_is_the_librarys_container_under_the_restricted_standard(self):
        secrets = "gateway.enabled=true,gateway.tls.existingSecret=cert,gateway.tokens.existingSecret=tokens,injector.enabled=false,gateway.autoscaling.enabled=true"
        lab.helm("install", "gate", charts.path("outrigger"), "--namespace", "strict", "--set-string", BROKERS, "--set", secrets)
        self.addCleanup(lambda: lab.helm("uninstall", "gate", "--namespace", "strict"))
        selector = "app.kubernetes.io/instance=gate"
        find = lambda: json.loads(lab.kubectl("get", "pods", "-n", "strict", "-l", selector, "-o", "json"))["items"]
        created = lab.until("the gateway has a pod", find)[0]
        [gateway] = created["spec"]["containers"]
        [sidecar] = sidecars(admitted(pod()))
        self.assertNotIn("restartPolicy", gateway)
        self.assertFalse(created["spec"]["automountServiceAccountToken"])
        self.assertEqual(environment(gateway)["OUTRIGGER_LISTEN__TCP"], "0.0.0.0:7420")
        self.assertEqual(gateway["lifecycle"], {"preStop": {"sleep": {"seconds": 5}}})
        for key in ["args", "image", "livenessProbe", "readinessProbe", "securityContext", "startupProbe"]:
            self.assertEqual(gateway[key], sidecar[key], key)
        kinds = lab.kubectl("get", "service,pdb,hpa,networkpolicy,serviceaccount,configmap", "-n", "strict", "-l", selector, "-o", "name").split()
        self.assertEqual(len(kinds), 6, kinds)

    def test_uninstalling_leaves_nothing_behind(self):
        lab.helm("uninstall", RELEASE, "--namespace", HOME)
        self.addCleanup(lambda: (release("install"), settled(lambda: self.is_default() and are_warned())))
        settled(lambda: not sidecars(admitted(pod())) and not warnings(pod()))
        kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding,validatingadmissionpolicy,validatingadmissionpolicybinding"
        self.assertEqual(lab.kubectl("get", kinds, "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name"), "")


if __name__ == "__main__":
    unittest.main()
